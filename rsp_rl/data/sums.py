"""Sums in words, for a small real language model: a task that it half knows.

One addition or subtraction with numbers up to 20, asked plainly or as a story, and answered in
whatever way the model likes, as long as `Answer: n` ends it. Of the held-out problems
SmolLM2-135M-Instruct (rounded to 4 bits) answers 0.365 rightly when it is greedy, and 0.081 when it
is sampled at temperature 1: there is something to reinforce.

`digits` is an easier level, of single digits that are added, in four plain wordings: 0.676 of its
held-out problems are answered rightly by the greedy model, 0.15 sampled, 0.12 with a soft prompt of
L = 10, so that most groups of rollouts are of both kinds.

Splits are by the pair of numbers and the operation: held-out sums are new ones in every wording.

``python -m rsp_rl.data.sums --output DIR`` writes ``train.parquet`` and ``heldout.parquet`` in the
schema that verl reads.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from rsp_rl.data import made

DATA_SOURCE = "sums"
LARGEST = 20
"""Bound of both numbers and of the result."""

WORDS, DIGITS = "words", "digits"

TRAIN_SHARES = {WORDS: 80, DIGITS: 60}
"""By level, per cent of all sums that are trained on; the others are held out."""

SPLITS = ("train", "heldout")

SIZES = {WORDS: (4096, 200), DIGITS: (216, 108)}
"""By level, problems of each split that its files hold by default; of digits there are no more."""

_NAMES = ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Henry")
_THINGS = ("apples", "books", "coins", "pens", "stamps", "shells", "cards", "marbles")
_WORDINGS = ("What is {} {} {}?", "How much is {} {} {}?", "{} {} {} = ?", "Calculate {} {} {}.")
_INSTRUCTION = ' End with "Answer: " and the number.'


@dataclass(frozen=True)
class Problem:
    """One sum in one wording.

    Attributes:
        first: 1 to 20.
        second: Added to it, negative where it is taken away.
        story: Who has what; None for a plain question.
        level: A key of ``TRAIN_SHARES``.
        wording: Of a plain question, its place among those that there are.
    """

    first: int
    second: int
    story: tuple[str, str] | None = None
    level: str = WORDS
    wording: int = 0

    @property
    def question(self) -> str:
        """What the user asks."""
        if self.story is None:
            sign = "+" if self.second > 0 else "-"
            asked = _WORDINGS[self.wording].format(self.first, sign, abs(self.second))
            return asked + _INSTRUCTION
        name, things = self.story
        what = f"gets {self.second} more" if self.second > 0 else f"gives {-self.second} away"
        return (
            f"{name} has {self.first} {things} and {what}. How many {things} does {name} have now?"
            f"{_INSTRUCTION}"
        )

    @property
    def answer(self) -> str:
        """The ground truth as text."""
        return str(self.first + self.second)

    @property
    def split(self) -> str:
        """The one split that this sum belongs to, the same in every process and version."""
        digest = hashlib.sha256(f"{self.first}{self.second:+d}".encode()).digest()
        in_train = int.from_bytes(digest[:8], "big") % 100 < TRAIN_SHARES[self.level]
        return "train" if in_train else "heldout"


def generate(split: str, size: int, seed: int = 0, level: str = WORDS) -> list[Problem]:
    """Draws distinct problems of one split, in a random but repeatable order.

    A larger ``size`` with the same seed only appends: the first problems stay the same. Half of the
    draws are plain, of which there are a few hundred; large sets lean towards stories. Digits have
    none.

    Args:
        split: One of ``SPLITS``.
        size: How many problems, at least 1.
        seed: Any integer; other seeds give another order.
        level: A key of ``TRAIN_SHARES``.

    Raises:
        ValueError: The split is unknown, the size is not positive, or the split has fewer problems.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    plain = [problem for problem in _PLAIN[level]() if problem.split == split]
    stories = [
        Problem(problem.first, problem.second, (name, things))
        for problem in plain
        if level == WORDS
        for name in _NAMES
        for things in _THINGS
    ]
    if not 1 <= size <= len(plain) + len(stories):
        raise ValueError(
            f"size of split {split!r} is {size}: ask for 1 to {len(plain) + len(stories)} problems"
        )
    rng = random.Random(f"{split}:{seed}")
    for kind in (plain, stories):
        rng.shuffle(kind)
    drawn = []
    while len(drawn) < size:
        kind = rng.choice([kind for kind in (plain, stories) if kind])
        drawn.append(kind.pop())
    return drawn


def _sums() -> list[Problem]:
    """Every sum, asked plainly."""
    return [
        Problem(first, second)
        for first in range(1, LARGEST + 1)
        for second in range(-LARGEST, LARGEST + 1)
        if second and 0 < first + second <= LARGEST
    ]


def _digits() -> list[Problem]:
    """Every sum of two digits, in every wording."""
    return [
        Problem(first, second, level=DIGITS, wording=wording)
        for first in range(1, 10)
        for second in range(1, 10)
        for wording in range(len(_WORDINGS))
    ]


_PLAIN = {WORDS: _sums, DIGITS: _digits}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    made.write_from_command_line(
        *("rsp_rl.data.sums", "sums in words", DATA_SOURCE, argv),
        {
            level: made.Level(partial(generate, level=level), *sizes)
            for level, sizes in SIZES.items()
        },
    )


if __name__ == "__main__":
    main()
