"""Sums in words: right answers, splits that never share a sum, files as the arithmetic task's."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rsp_rl.data.benchmarks import load_benchmark
from rsp_rl.data.sums import DIGITS, LARGEST, SIZES, SPLITS, Problem, generate, main

SAMPLE = [problem for split in ("train", "heldout") for problem in generate(split, 600, seed=5)]


def test_problems_read_as_they_should() -> None:
    assert Problem(3, 4).question == 'What is 3 + 4? End with "Answer: " and the number.'
    story = Problem(9, -4, ("Anna", "pens"))
    assert story.question == (
        "Anna has 9 pens and gives 4 away. How many pens does Anna have now? "
        'End with "Answer: " and the number.'
    )
    assert (Problem(3, 4).answer, story.answer) == ("7", "5")


def test_answers_are_right_and_small() -> None:
    for problem in SAMPLE:
        first, second = map(int, re.findall(r"\d+", problem.question))
        sign = 1 if re.search(r"\+|gets", problem.question) else -1
        assert int(problem.answer) == first + sign * second
        assert all(0 < n <= LARGEST for n in (first, second, int(problem.answer)))


def test_no_sum_is_in_both_splits() -> None:
    sums = {
        split: {(problem.first, problem.second) for problem in generate(split, 800)}
        for split in ("train", "heldout")
    }
    assert not sums["train"] & sums["heldout"]
    assert min(map(len, sums.values())) > 50


def test_problems_are_distinct_and_repeatable_and_grow_at_the_end() -> None:
    drawn = generate("train", 500, seed=3)
    assert len(set(drawn)) == 500
    assert generate("train", 700, seed=3)[:500] == drawn
    assert generate("train", 500, seed=4) != drawn
    assert 0.3 < sum(problem.story is None for problem in generate("train", 200)) / 200 < 0.7


@pytest.mark.parametrize(("split", "size"), [("warmup", 1), ("train", 0), ("heldout", 10**6)])
def test_what_there_is_not(split: str, size: int) -> None:
    with pytest.raises(ValueError, match="split"):
        generate(split, size)


def test_the_benchmark_is_what_the_recipe_holds_out(tmp_path: Path) -> None:
    main(["--output", str(tmp_path), "--train-size", "8"])
    rows = pq.read_table(tmp_path / "heldout.parquet").to_pylist()
    problems = load_benchmark("sums")
    assert [row["prompt"][0]["content"] for row in rows] == [p.question for p in problems]
    assert [row["reward_model"]["ground_truth"] for row in rows] == [p.gold for p in problems]
    assert {row["data_source"] for row in rows} == {"sums"}


def test_digits_are_plain_and_all_there() -> None:
    drawn = {
        split: generate(split, size, level=DIGITS)
        for split, size in zip(SPLITS, SIZES[DIGITS], strict=True)
    }
    problems = [problem for split in SPLITS for problem in drawn[split]]
    assert len({problem.question for problem in problems}) == len(problems) == 9 * 9 * 4
    for problem in problems:
        first, second = map(int, re.findall(r"\d", problem.question))
        assert int(problem.answer) == first + second
    sums = [{(p.first, p.second) for p in drawn[split]} for split in SPLITS]
    assert not sums[0] & sums[1]
    assert Problem(3, 4, level=DIGITS, wording=2).question.startswith("3 + 4 = ? End with")
    with pytest.raises(ValueError, match="ask for 1 to 108"):
        generate("heldout", 109, level=DIGITS)


def test_the_benchmark_of_digits_is_what_its_file_holds_out(tmp_path: Path) -> None:
    main(["--output", str(tmp_path), "--level", "digits"])
    rows = pq.read_table(tmp_path / "heldout.parquet").to_pylist()
    problems = load_benchmark("sums_digits")
    assert [row["prompt"][0]["content"] for row in rows] == [p.question for p in problems]
    assert len(pq.read_table(tmp_path / "train.parquet")) == SIZES[DIGITS][0]
