"""What soft prompts change in the distributions along the answer, problem by problem.

Beside `distributions`, which shows each condition's own means: here a problem's answers under a
condition are held against its answers without soft prompts, early in the answer and later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple

import numpy as np

from rsp_rl.analysis.averages import finite_means
from rsp_rl.display.tables import csv_text
from rsp_rl.evaluation.comparison import Estimate
from rsp_rl.evaluation.metrics import bootstrap_means, interval

EARLY, LATE, FADED = "first 5%", "second half", "second half less a quarter of the first 5%"
"""Of the answer. `FADED` is of the early change's sign where more than a quarter of it is left."""

Means = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By problem: the metrics' means early and late in its answers, [M] each."""

Changes = dict[str, list[Estimate]]
"""By part: each metric's change with its 95% interval over problems."""


def early_and_late(answers: Sequence[np.ndarray], first: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Means over a problem's answers of their first tokens, and of their second halves.

    Args:
        answers: Metrics [M, N] of each answer's tokens.
        first: How many tokens are the first of each.

    Returns:
        [M] twice.
    """
    early = [a[:, :count].mean(1) for a, count in zip(answers, first, strict=True)]
    late = [a[:, a.shape[1] // 2 :].mean(1) for a in answers]
    return np.mean(early, axis=0), np.mean(late, axis=0)


def changes(condition: Means, baseline: Means, *, seed: int = 0) -> Changes:
    """Differences to the baseline over the problems that both answered with text.

    Over one problem they have no interval, over none no value either: NaN.

    Args:
        condition: With soft prompts.
        baseline: Without.
        seed: Of the bootstrap.
    """
    shared = sorted(condition.keys() & baseline.keys())
    metrics = len(next(iter(condition.values()))[0])
    early, late = (
        np.array([condition[name][part] - baseline[name][part] for name in shared])
        .reshape(len(shared), metrics)
        .T
        for part in (0, 1)
    )
    rows = {EARLY: early, LATE: late, FADED: late - early / 4}
    if len(shared) < 2:
        return {
            part: [Estimate(float(v), math.nan, math.nan) for v in finite_means(values.T)]
            for part, values in rows.items()
        }
    drawn = bootstrap_means(np.concatenate(list(rows.values())), np.random.default_rng(seed))
    by_part = np.split(drawn, len(rows), axis=1)
    return {
        part: [
            Estimate(float(v.mean()), *interval(d))
            for v, d in zip(values, resampled.T, strict=True)
        ]
        for (part, values), resampled in zip(rows.items(), by_part, strict=True)
    }


def shown(change: Estimate) -> str:
    """A change with its interval, as far as there are any."""
    if math.isnan(change.value):
        return "–"
    interval = f" [{change.low:+.4f}, {change.high:+.4f}]"
    return f"{change.value:+.4f}" + ("" if math.isnan(change.low) else interval)


def to_csv(found: Mapping[str, Mapping[str, Changes]], metrics: Sequence[str]) -> str:
    """One row a benchmark, condition, part of the answer and metric."""
    return csv_text(
        "benchmark,condition,part,metric,change,low,high",
        [
            [
                *(benchmark, name, part, metric),
                *("" if math.isnan(number) else number for number in astuple(estimate)),
            ]
            for benchmark, conditions in found.items()
            for name, parts in conditions.items()
            for part, estimates in parts.items()
            for metric, estimate in zip(metrics, estimates, strict=True)
        ],
    )
