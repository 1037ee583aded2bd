"""Chains of sums and products modulo 7: what a small model cannot do at once and can step by step.

A problem is a number and three or four operations from left to right, `+` and `*` alike often, each
with a digit that changes what comes after it. Each step is a line, such as ``3*5=1``. Sums and
products together do not commute, so that nothing but the steps, one after the other, leads to the
answer; guessed, one in seven is right.

Every problem belongs to exactly one split, by a hash of its text: there are so few chains of three
operations that the splits would share some.

``python -m rsp_rl.data.remainders --output DIR`` writes the three files.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from functools import partial

from rsp_rl.data.made_steps import draw_distinct, write_from_command_line
from rsp_rl.data.step_problems import StepProblem

MODULUS = 7
STEPS = (3, 4)
"""How many operations a problem has, drawn alike often. There are few chains of three, and none
comes twice: of the training file of `SIZES` they are 44 of 100."""

SIZES = {"train": 8_192, "validation": 200, "heldout": 500}

SPLIT_SHARES = {"train": 80, "validation": 10, "heldout": 10}
"""Per cent of all problems in each split."""


def generate(split: str, size: int, seed: int = 0) -> list[StepProblem]:
    """Draws distinct problems of one split; see `rsp_rl.data.made_steps.draw_distinct`."""
    return draw_distinct(partial(_problem_of, split=split), split, size, seed)


def split_of(question: str) -> str:
    """The split that a question belongs to."""
    place = zlib.crc32(question.encode()) % 100
    for split, share in SPLIT_SHARES.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("the shares add up to 100")


def _problem_of(rng: random.Random, split: str) -> StepProblem:
    while split_of((problem := _problem(rng)).question) != split:
        pass
    return problem


def _problem(rng: random.Random) -> StepProblem:
    value = rng.randrange(MODULUS)
    chain, steps = str(value), []
    for _ in range(rng.choice(STEPS)):
        times = rng.random() < 0.5
        by = rng.randrange(2 if times else 1, MODULUS)
        after = (value * by if times else value + by) % MODULUS
        sign = "*" if times else "+"
        chain += f"{sign}{by}"
        steps.append(f"{value}{sign}{by}={after}")
        value = after
    return StepProblem(
        f"Compute {chain} from left to right, modulo {MODULUS}.", tuple(steps), str(value)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    task = "chains modulo 7"
    write_from_command_line("rsp_rl.data.remainders", task, SIZES, argv, {"chains": generate})


if __name__ == "__main__":
    main()
