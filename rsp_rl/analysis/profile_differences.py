"""Curves along the answer, condition against condition, with intervals at every position.

Beside `distributions`, whose curves are means with their standard errors: here every position has a
95% bootstrap interval, and its difference to the first condition on the same drawn problems, of
those that have a token there under both. One problem has no interval. The figure leaves out where
fewer than a tenth of the problems have a token, or fewer than two: a few long answers' ends.

Shape suffixes: `_PMB` problems, metrics, bins; `_RP` resamples and problems.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.analysis.averages import finite_means
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text
from rsp_rl.evaluation.metrics import RESAMPLES

Curves = Mapping[str, np.ndarray]
"""By problem: means over its answers by metric and bin, [M, B]; NaN where none has a token."""

_CHUNK = 500


@dataclass(frozen=True)
class Band:
    """Values with their 95% intervals, [M, B] each, and over how many problems, [B]."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    problems: np.ndarray


@dataclass(frozen=True)
class Compared:
    """One condition's curves, and their differences to the first's; None for itself."""

    own: Band
    difference: Band | None


def compare_curves(by_condition: Mapping[str, Curves], seed: int = 0) -> dict[str, Compared]:
    """Bands of every condition.

    Args:
        by_condition: The first is the reference; all with the same bins.
        seed: Of the bootstrap; each band's draws are the same problems.
    """
    first = next(iter(by_condition))
    found = {}
    for name, curves in by_condition.items():
        difference = None
        if name != first:
            shared = sorted(curves.keys() & by_condition[first].keys())
            if shared:
                reference = by_condition[first]
                difference = band(np.stack([curves[p] - reference[p] for p in shared]), seed)
        found[name] = Compared(
            band(np.stack([curves[p] for p in sorted(curves)]), seed), difference
        )
    return found


def band(values_PMB: np.ndarray, seed: int = 0) -> Band:
    """Means over problems, and the 95% of means over problems drawn anew.

    A draw without any problem that has a token in a bin says nothing of that bin.
    """
    problems = len(values_PMB)
    there = ~np.isnan(values_PMB)
    flat = np.nan_to_num(values_PMB).reshape(problems, -1)
    counted = there.reshape(problems, -1).astype(float)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES // _CHUNK):
        counts_RP = rng.multinomial(problems, np.full(problems, 1 / problems), size=_CHUNK)
        sums, numbers = counts_RP @ flat, counts_RP @ counted
        drawn.append(np.divide(sums, numbers, out=np.full(sums.shape, np.nan), where=numbers > 0))
    means = np.concatenate(drawn)
    low, high = np.full(means.shape[1], np.nan), np.full(means.shape[1], np.nan)
    some = counted.sum(axis=0) > 1
    if some.any():
        low[some], high[some] = np.nanpercentile(means[:, some], [2.5, 97.5], axis=0)
    shape = values_PMB.shape[1:]
    return Band(
        finite_means(values_PMB), low.reshape(shape), high.reshape(shape), there[:, 0].sum(axis=0)
    )


def to_csv(
    found: Mapping[str, Mapping[str, Compared]],
    metrics: Sequence[str],
    positions: Mapping[str, np.ndarray],
) -> str:
    """One row a benchmark, condition, metric and bin that has a token under the condition.

    Args:
        found: By benchmark and condition.
        metrics: Their names.
        positions: Middles of the bins by benchmark.
    """
    return csv_text(
        "benchmark,condition,metric,position,value,low,high,problems,"
        "difference,difference_low,difference_high,difference_problems",
        [
            [
                *(benchmark, name, metric, positions[benchmark][b]),
                *_cells(own, i, b),
                *_cells(compared.difference, i, b),
            ]
            for benchmark, by_condition in found.items()
            for name, compared in by_condition.items()
            for own in [compared.own]
            for i, metric in enumerate(metrics)
            for b in range(own.value.shape[1])
            if own.problems[b]
        ],
    )


def _cells(band: Band | None, i: int, b: int) -> list[object]:
    """Value, interval and number of problems; empty where there is none."""
    if band is None or not band.problems[b]:
        return ["", "", "", ""]
    values = (band.value[i, b], band.low[i, b], band.high[i, b])
    return [*("" if np.isnan(value) else value for value in values), band.problems[b]]


def draw(
    found: Mapping[str, Mapping[str, Compared]],
    positions: Mapping[str, np.ndarray],
    where: str,
) -> Figure:
    """A row a benchmark: the first metric along the answer, and its difference to the first curve.

    Args:
        found: By benchmark and condition.
        positions: Middles of the bins by benchmark.
        where: What they are.
    """
    figure, axes = figures.panels(len(found), 2, (9.0, 3.3 * len(found) + 0.5))
    for row, (benchmark, by_condition) in enumerate(found.items()):
        own, change = axes[2 * row : 2 * row + 2]
        first = next(iter(by_condition))
        for number, (name, compared) in enumerate(by_condition.items()):
            colour = figures.colour(number)
            for axis, shown in ((own, compared.own), (change, compared.difference)):
                if shown is None:
                    continue
                there = shown.problems >= max(2, shown.problems.max() / 10)
                at, value = positions[benchmark][there], shown.value[0, there]
                low, high = shown.low[0, there], shown.high[0, there]
                axis.plot(at, value, color=colour, label=name)
                axis.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
        change.axhline(0, color="#444444", linewidth=0.8)
        own.set_title(f"{benchmark}: entropy (nats)", fontsize=10)
        change.set_title(f"less that of {first}", fontsize=10)
        for axis in (own, change):
            axis.set_xlabel(where)
    figures.legend_below(figure, axes[0], 4)
    return figure
