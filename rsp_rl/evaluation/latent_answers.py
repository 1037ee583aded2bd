"""Answers of models that think in hidden states, in numbers: accuracy, tokens, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from rsp_rl.evaluation.metrics import bootstrap_means, interval


@dataclass(frozen=True)
class Judged:
    """An answer that was looked at.

    Attributes:
        right: Whether it is the problem's.
        thoughts: How many came before it.
        tokens: Thoughts and tokens, each of which takes a step.
        seconds: Of its batch, by the number of problems in it.
    """

    right: bool
    thoughts: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class LatentSummary:
    """Of one or several runs on the same problems.

    Attributes:
        problems: How many.
        accuracy: Share that is right; of several runs their mean.
        accuracy_low: Lower end of its 95% bootstrap interval over problems.
        accuracy_high: Upper end.
        thoughts: Mean a problem.
        tokens: Mean a problem, thoughts among them.
        seconds_per_problem: Mean.
    """

    problems: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    thoughts: float
    tokens: float
    seconds_per_problem: float

    def as_dict(self) -> dict[str, float]:
        """Plain types."""
        return asdict(self)


def summarise(runs: Sequence[Sequence[Judged]], *, seed: int = 0) -> LatentSummary:
    """The numbers of runs that answered the same problems.

    Args:
        runs: One at least, a seed of the training each, say; each in the order of the problems.
        seed: Of the bootstrap.
    """
    right_P = np.array([[judged.right for judged in run] for run in runs], dtype=float).mean(axis=0)
    low, high = interval(bootstrap_means(right_P[None], np.random.default_rng(seed))[:, 0])
    every = [judged for run in runs for judged in run]
    return LatentSummary(
        problems=len(right_P),
        accuracy=float(right_P.mean()),
        accuracy_low=low,
        accuracy_high=high,
        thoughts=float(np.mean([judged.thoughts for judged in every])),
        tokens=float(np.mean([judged.tokens for judged in every])),
        seconds_per_problem=float(np.mean([judged.seconds for judged in every])),
    )
