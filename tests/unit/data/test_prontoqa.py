"""Deductions of five hops: what follows is the answer, by the steps, and nothing contradicts it."""

from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.data.made_names import KINDS, QUALITIES
from rsp_rl.data.prontoqa import FALSE, HOPS, TRUE, generate
from tests.properties import examples

RULE = re.compile(r"(?:(?:Every|Each) (\w+) is|(\w+)s are) (?:a )?(not )?(\w+)\.")
FACT = re.compile(r"([A-Z]\w+) is (?:a )?(not )?(\w+)\.")


def told(sentence: str) -> tuple[str, tuple[bool, str]]:
    """Of what a rule or fact speaks, and what it says: whether it holds, and the word."""
    rule = RULE.fullmatch(sentence)
    if rule:
        of, plural_of, no, word = rule.groups()
        of = (of or plural_of).lower()
    else:
        of, no, word = FACT.fullmatch(sentence).groups()
    return of, (no is None, word.removesuffix("s") if word.removesuffix("s") in KINDS else word)


def closure(sentences: list[str], person: str) -> dict[str, set[bool]]:
    """By word, whether it holds of somebody, all that follows."""
    told_of: dict[str, list[tuple[bool, str]]] = {}
    for of, says in map(told, sentences):
        told_of.setdefault(of, []).append(says)
    found: dict[str, set[bool]] = {}
    todo = [person]
    while todo:
        for holds, word in told_of.get(todo.pop(), ()):
            if holds not in found.setdefault(word, set()):
                found[word].add(holds)
                if holds and word in KINDS:
                    todo.append(word)
    return found


@examples(60)
@given(seed=st.integers(), split=st.sampled_from(["train", "heldout"]))
def test_the_answer_follows_by_the_steps_and_nothing_contradicts_it(seed: int, split: str) -> None:
    [problem] = generate(split, 1, seed)
    text, _, asked = problem.question.partition(" True or false: ")
    sentences = re.split(r"(?<=[.]) ", text)
    assert len({*sentences}) == len(sentences)
    person, (affirmed, quality) = told(asked)
    found = closure(sentences, person)
    assert all(len(holds) == 1 for holds in found.values())
    [holds] = found[quality]
    assert problem.answer == (TRUE if holds == affirmed else FALSE)

    *hops, last = problem.steps
    assert len(hops) == HOPS
    kind = None
    for hop in hops:
        fact, rule = re.split(r"(?<=[.]) ", hop)
        assert rule in sentences
        assert kind is None or told(fact) == (person, (True, kind))
        assert told(rule)[0] == told(fact)[1][1]
        kind = told(rule)[1][1]
    assert re.split(r"(?<=[.]) ", hops[0])[0] in sentences
    assert told(last) == (person, (holds, quality))

    # Both ways are said, of kinds with rules before and after: only the hops tell them apart.
    said = [told(s) for s in sentences if told(s)[1][1] == quality]
    assert {says for _, (says, _) in said} == {True, False}
    kinds = [told(s) for s in sentences if told(s)[1][1] in KINDS]
    for of, _ in said:
        assert any(of == before for before, _ in kinds)
        assert any(of == after for _, (_, after) in kinds)
    assert quality in QUALITIES


def test_neither_the_wording_nor_the_order_tells() -> None:
    problems = generate("train", 800)
    bound = 4 * math.sqrt(800) / 2
    true = [problem.answer == TRUE for problem in problems]
    denied = [": " in p.question and " not " in p.question.split(": ")[1] for p in problems]
    assert abs(sum(true) - 400) < bound
    assert abs(sum(t != d for t, d in zip(true, denied, strict=True)) - 400) < bound
