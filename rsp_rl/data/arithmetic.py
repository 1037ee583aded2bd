"""The arithmetic task of the tiny run: chains of sums, solved step by step.

A problem is a chain of two to four additions and subtractions of 1..9 in which every partial
result, the answer too, is a single digit. It has two right answers: a direct one, ``\\boxed{n}``,
and a reasoned one, which writes a line a step before it. A small model finds the second far easier
than the first, which is what reinforcement learning has to discover.

Every problem belongs to exactly one split, by a hash of its text: what the model was warmed up on
is never trained on by RL, and neither is ever evaluated on.

``python -m rsp_rl.data.arithmetic --output DIR`` writes ``train.parquet`` and ``heldout.parquet``
in the schema that verl reads.
"""

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.data import made

DATA_SOURCE = "arithmetic"
MAX_TERM = 9
MAX_RESULT = 9
"""Bound of every partial result. With one-digit totals all steps are of one form, which a tiny
model learns in a minute or two; carries would take it many times longer."""

STEPS = (2, 3, 4)
"""How many additions and subtractions a problem has; each count is equally likely."""

SPLIT_SHARES = {"warmup": 50, "train": 40, "heldout": 10}
"""Per cent of all problems in each split."""

# One candidate in ten belongs to the smallest split: this many rejections in a row can only mean
# that a split is nearly used up.
_MAX_REJECTIONS = 20_000


@dataclass(frozen=True)
class Problem:
    """One chain of additions and subtractions.

    Attributes:
        terms: The signed numbers in order, each 1..9 in size: ``(7, 2, -4)`` is 7+2-4.
    """

    terms: tuple[int, ...]

    @property
    def expression(self) -> str:
        """The chain as text without spaces, such as ``7+2-4``."""
        return str(self.terms[0]) + "".join(f"{term:+d}" for term in self.terms[1:])

    @property
    def partial_results(self) -> tuple[int, ...]:
        """The running total after each term; the last one is the answer."""
        return tuple(itertools.accumulate(self.terms))

    @property
    def question(self) -> str:
        """What the user asks."""
        return f"Compute {self.expression}."

    @property
    def answer(self) -> str:
        """The ground truth as text."""
        return str(self.partial_results[-1])

    @property
    def direct_solution(self) -> str:
        """The boxed answer alone."""
        return rf"\boxed{{{self.answer}}}"

    @property
    def steps(self) -> tuple[str, ...]:
        """The sum of each term and the total before it, such as ``9-4=5``."""
        totals = self.partial_results
        return tuple(
            f"{before}{term:+d}={after}"
            for before, term, after in zip(totals[:-1], self.terms[1:], totals[1:], strict=True)
        )

    @property
    def reasoned_solution(self) -> str:
        """A line for every step, then the boxed answer."""
        return "".join(f"{step}\n" for step in self.steps) + self.direct_solution

    @property
    def split(self) -> str:
        """The one split that this problem belongs to, the same in every process and version."""
        digest = hashlib.sha256(self.expression.encode()).digest()
        bucket = int.from_bytes(digest[:8], "big") % 100
        for name, share in SPLIT_SHARES.items():
            if bucket < share:
                return name
            bucket -= share
        raise AssertionError("SPLIT_SHARES must add up to 100")


def generate(split: str, size: int, seed: int = 0) -> list[Problem]:
    """Draws distinct problems of one split, in a random but repeatable order.

    A larger ``size`` with the same seed only appends: the first problems stay the same. The
    shorter kinds are scarce (about 730 and 6,600 problems over all splits, and 59,000 of the
    longest), so large sets lean towards longer chains.

    Args:
        split: A key of ``SPLIT_SHARES``.
        size: How many problems, at least 1.
        seed: Any integer; other seeds give other problems of the same split.

    Raises:
        ValueError: The split is unknown, the size is not positive, or the split has fewer problems.
    """
    if split not in SPLIT_SHARES:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLIT_SHARES)}")
    if size < 1:
        raise ValueError(f"size of split {split!r} is {size}: ask for at least 1 problem")

    problems: dict[Problem, None] = {}  # a dict keeps the order, a set would not
    rejections = 0
    for problem in _candidates(random.Random(f"{split}:{seed}")):
        if problem.split != split or problem in problems:
            rejections += 1
            if rejections > _MAX_REJECTIONS:
                raise ValueError(
                    f"split {split!r} has hardly more than {len(problems)} problems: "
                    f"ask for fewer than {size}"
                )
            continue
        rejections = 0
        problems[problem] = None
        if len(problems) == size:
            break
    return list(problems)


def _candidates(rng: random.Random) -> Iterator[Problem]:
    """Yields random valid problems of any split, without end and with repetitions."""
    while True:
        total = rng.randint(1, MAX_TERM)
        terms = [total]
        for _ in range(rng.choice(STEPS)):
            lowest, highest = max(-MAX_TERM, -total), min(MAX_TERM, MAX_RESULT - total)
            terms.append(rng.choice([t for t in range(lowest, highest + 1) if t != 0]))
            total += terms[-1]
        yield Problem(tuple(terms))


def write_dataset(
    output: Path | str, *, train_size: int = 4096, heldout_size: int = 200, seed: int = 0
) -> dict[str, Path]:
    """This task's files; see `rsp_rl.data.made.write_dataset`."""
    return made.write_dataset(
        output,
        generate,
        DATA_SOURCE,
        train_size=train_size,
        heldout_size=heldout_size,
        seed=seed,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    made.write_from_command_line(
        *("rsp_rl.data.arithmetic", "the arithmetic task", DATA_SOURCE, argv),
        {"chains": made.Level(generate)},
    )


if __name__ == "__main__":
    main()
