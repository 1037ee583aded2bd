"""Deductions of five hops, true or false: as ProntoQA's (arXiv 2210.01240) in Coconut's paper.

Somebody is of a kind, and each kind is of one further: five rules lead to a quality, which the
question affirms or denies. The chain has kinds before and after it; every kind but the last of the
five has a quality of its own, and some a second kind. Another chain, of kinds that nobody is of,
has one with the asked quality the other way round, in the middle as the right one is: only the
deduction tells which of the two sentences counts. Sentences are in random order. As in the paper's
example (appendix A.1) a step is what is known and the rule that is applied to it, and the last is
what follows: six for five hops. The words are ours, and there are no proofs by negation.

``python -m rsp_rl.data.prontoqa --output DIR`` writes the three files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice, pairwise

from rsp_rl.data.made_names import KINDS, PEOPLE, QUALITIES
from rsp_rl.data.made_steps import draw_distinct, write_from_command_line
from rsp_rl.data.step_problems import StepProblem

SIZES = {"train": 9_000, "validation": 200, "heldout": 800}
"""Problems of each split: the paper's (table 3)."""

HOPS = 5
"""Rules from what is said of somebody to what is asked."""

_BEFORE, _AFTER = 1, 2
"""Kinds of the chain that lead to where the deduction begins, and that follow where it ends."""

_BRANCHES = 2
"""Kinds of the deduction that are also of another kind, which leads nowhere."""

_STRANGERS = 4
"""Kinds of the chain that nobody is of; the last but one has the asked quality, but reversed."""

TRUE, FALSE = "True", "False"


def generate(split: str, size: int, seed: int = 0) -> list[StepProblem]:
    """Draws distinct problems of one split; see `rsp_rl.data.made_steps.draw_distinct`."""
    return draw_distinct(_problem, split, size, seed)


def _problem(rng: random.Random) -> StepProblem:
    person = rng.choice(PEOPLE)
    kinds = iter(rng.sample(KINDS, _BEFORE + HOPS + _AFTER + _BRANCHES + _STRANGERS))
    chain = list(islice(kinds, _BEFORE + HOPS + _AFTER))
    branches, strangers = list(islice(kinds, _BRANCHES)), list(kinds)
    used = chain[_BEFORE : _BEFORE + HOPS]
    ends = {used[-1], strangers[-2]}
    others = [kind for kind in (*chain, *branches, *strangers) if kind not in ends]
    asked, *qualities = rng.sample(QUALITIES, 1 + len(others))
    holds, affirmed = rng.random() < 0.5, rng.random() < 0.5

    next_kind = {kind: _of_kind(rng, kind, after) for kind, after in pairwise(chain)}
    conclusion = _has(rng, used[-1], asked, holds)
    branching = zip(rng.sample(used, _BRANCHES), branches, strict=True)
    own = zip(others, qualities, strict=True)
    sentences = [
        *next_kind.values(),
        conclusion,
        _has(rng, strangers[-2], asked, not holds),
        *(_of_kind(rng, *kinds) for kinds in (*branching, *pairwise(strangers))),
        *(_has(rng, kind, quality, rng.random() < 0.5) for kind, quality in own),
    ]
    rng.shuffle(sentences)
    facts = [f"{person} is a {kind}." for kind in used]
    rules = [*(next_kind[kind] for kind in used[:-1]), conclusion]
    return StepProblem(
        " ".join([*sentences, facts[0], f"True or false: {_is(person, asked, affirmed)}"]),
        (
            *(f"{fact} {rule}" for fact, rule in zip(facts, rules, strict=True)),
            _is(person, asked, holds),
        ),
        TRUE if holds == affirmed else FALSE,
    )


def _of_kind(rng: random.Random, kind: str, other: str) -> str:
    every = f"{rng.choice(('Every', 'Each'))} {kind} is a {other}."
    return rng.choice((every, f"{kind.capitalize()}s are {other}s."))


def _has(rng: random.Random, kind: str, quality: str, holds: bool) -> str:
    no = "" if holds else "not "
    every = f"{rng.choice(('Every', 'Each'))} {kind} is {no}{quality}."
    return rng.choice((every, f"{kind.capitalize()}s are {no}{quality}."))


def _is(person: str, quality: str, holds: bool) -> str:
    return f"{person} is {'' if holds else 'not '}{quality}."


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    write_from_command_line(
        *("rsp_rl.data.prontoqa", "deductions of five hops", SIZES, argv), {"hops": generate}
    )


if __name__ == "__main__":
    main()
