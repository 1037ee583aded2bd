"""Means and standard errors over problems, with gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_and_sem(by_problem: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Mean over problems of the mean over their samples, and its standard error.

    A problem's samples are no independent evidence, so the error is over problems. NaN is left
    out; the error of a single problem is NaN, since one says nothing of their spread.

    Args:
        by_problem: Values of each problem's samples, of any equal shape.

    Returns:
        Mean and standard error, [2, ...].
    """
    means_P = np.stack([finite_means(np.stack(samples)) for samples in by_problem])
    counts = np.sum(~np.isnan(means_P), axis=0)
    mean = finite_means(means_P)
    squares = np.nansum((means_P - mean) ** 2, axis=0)
    variance = np.divide(squares, counts - 1, out=np.full(mean.shape, np.nan), where=counts > 1)
    return np.stack([mean, np.sqrt(variance / np.maximum(counts, 1))])


def finite_means(values: np.ndarray) -> np.ndarray:
    """Means over the first axis of what is not NaN; NaN, without numpy's warning, of nothing."""
    counts = np.sum(~np.isnan(values), axis=0)
    sums = np.nansum(values, axis=0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def plain(value: float) -> float | None:
    """A number for JSON, which knows no NaN."""
    return None if np.isnan(value) else float(value)
