"""Choose L per model and benchmark (paper, Table 7), and report it on problems that had no say.

The paper takes the best of L in {10, 15, 20}. The best of several is better than it would be on
new problems: here one half of the problems chooses, the other half gives the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from rsp_rl.basics.errors import ConfigError
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.metrics import bootstrap_means, interval, problem_accuracies
from rsp_rl.inference.prompts import stable_hash


class LengthChoice(TypedDict):
    """What was chosen on one half of the problems, and how it does on the other."""

    length: int
    """L with the highest accuracy on the choosing half; the smallest of equals."""
    accuracy: float
    """Of that L on the other half."""
    accuracy_low: float
    """Lower end of its 95% bootstrap interval over problems."""
    accuracy_high: float
    problems: int
    """Problems in the other half."""
    choosing: dict[str, float]
    """Accuracy of each L on the choosing half."""
    held_out: dict[str, float]
    """Accuracy of each L on the other half."""


def choose_length(samples: Mapping[int, Sequence[Sample]], seed: int = 0) -> LengthChoice:
    """Choose among lengths that were evaluated on the same problems.

    Args:
        samples: Every sample of a benchmark, by L.
        seed: Of the split into halves, a pure function of seed and problem id; of the bootstrap.

    Raises:
        ConfigError: If the lengths were asked other problems, or there are fewer than two.
        RunFolderError: As `rsp_rl.evaluation.metrics.by_problem`.
    """
    accuracies = {length: problem_accuracies(samples[length]) for length in sorted(samples)}
    problems = {frozenset(accuracy) for accuracy in accuracies.values()}
    if len(problems) != 1:
        raise ConfigError("the lengths were not asked the same problems; evaluate them anew")
    ranked = sorted(problems.pop(), key=lambda problem: stable_hash([seed, problem], 16))
    if len(ranked) < 2:
        raise ConfigError("choosing a length takes two problems at least: one chooses, one reports")
    halves = ranked[: len(ranked) // 2], ranked[len(ranked) // 2 :]
    choosing, held_out = (
        {
            length: float(np.mean([accuracy[problem] for problem in half]))
            for length, accuracy in accuracies.items()
        }
        for half in halves
    )
    best = max(choosing, key=choosing.__getitem__)
    values_P = np.array([accuracies[best][problem] for problem in sorted(halves[1])])
    low, high = interval(bootstrap_means(values_P[None], np.random.default_rng(seed))[:, 0])
    return {
        "length": best,
        "accuracy": held_out[best],
        "accuracy_low": low,
        "accuracy_high": high,
        "problems": len(halves[1]),
        "choosing": {str(length): accuracy for length, accuracy in choosing.items()},
        "held_out": {str(length): accuracy for length, accuracy in held_out.items()},
    }
