"""The arithmetic task (`rsp_rl.data.arithmetic`) with its steps.

Validated is on problems of its split `warmup`: the splits share none, and what is trained here was
not warmed up on them.

``python -m rsp_rl.data.arithmetic_steps --output DIR`` writes the three files.
"""

from __future__ import annotations

from collections.abc import Sequence

from rsp_rl.data import arithmetic
from rsp_rl.data.made_steps import write_from_command_line
from rsp_rl.data.step_problems import StepProblem

SIZES = {"train": 16_384, "validation": 200, "heldout": 500}

_SPLITS = {"train": "train", "validation": "warmup", "heldout": "heldout"}


def generate(split: str, size: int, seed: int = 0) -> list[StepProblem]:
    """Draws distinct problems of one split; see `rsp_rl.data.arithmetic.generate`.

    Raises:
        ValueError: The split is unknown, the size is not positive, or the split has fewer problems.
    """
    return [
        StepProblem(problem.question, problem.steps, problem.answer)
        for problem in arithmetic.generate(_SPLITS.get(split, split), size, seed)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    write_from_command_line(
        *("rsp_rl.data.arithmetic_steps", "the arithmetic task", SIZES, argv), {"chains": generate}
    )


if __name__ == "__main__":
    main()
