"""Chains modulo 7: every step and the answer by another way of reckoning, nothing in the guess."""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.data.remainders import MODULUS, SPLIT_SHARES, STEPS, generate, main
from rsp_rl.data.step_problems import load_step_problems
from tests.properties import examples


@examples(60)
@given(seed=st.integers(), split=st.sampled_from(["train", "validation", "heldout"]))
def test_the_steps_lead_from_the_chain_to_the_answer(seed: int, split: str) -> None:
    [problem] = generate(split, 1, seed)
    [chain] = re.fullmatch(
        r"Compute (\S+) from left to right, modulo 7\.", problem.question
    ).groups()
    first, *operations = re.findall(r"^\d|[+*]\d", chain)
    assert first + "".join(operations) == chain
    assert len(problem.steps) == len(operations)
    assert len(operations) in STEPS
    value = int(first)
    for step, (sign, by) in zip(problem.steps, operations, strict=True):
        after = (value * int(by) if sign == "*" else value + int(by)) % MODULUS
        assert step == f"{value}{sign}{by}={after}"
        assert int(by) % MODULUS not in ((0, 1) if sign == "*" else (0,))
        value = after
    assert problem.answer == str(value)


def test_splits_share_no_problem() -> None:
    questions = [{p.question for p in generate(split, 1500)} for split in SPLIT_SHARES]
    assert not questions[0] & questions[1] | questions[0] & questions[2]
    assert not questions[1] & questions[2]


def test_no_answer_is_likelier_and_none_is_given_away_by_the_last_number() -> None:
    problems = generate("train", 7000)
    answers = Counter(problem.answer for problem in problems)
    # A product keeps 0 at 0, so that 0 is not rarer; within five standard deviations of a seventh.
    assert all(abs(count - 1000) < 5 * (7000 * 6 / 49) ** 0.5 for count in answers.values())
    last = Counter((p.steps[-1].split("=")[0][-1], p.answer) for p in problems)
    assert max(last.values()) < 3 * 7000 / 49


def test_the_command_line_writes_three_files(tmp_path) -> None:
    sizes = ["--train-size", "20", "--validation-size", "5", "--heldout-size", "5"]
    main(["--output", str(tmp_path), *sizes])
    assert len(load_step_problems(str(tmp_path / "train.jsonl"))) == 20
