"""ROUGE-L of two texts (Lin 2004): how much of one runs through the other, in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rouge_l(text: str, reference: str) -> float:
    """F-measure over words that white space separates, 0 to 1; 1 for two empty texts."""
    a, b = text.split(), reference.split()
    if not a or not b:
        return float(a == b)
    common = longest_common_subsequence(a, b)
    return 2 * common / (len(a) + len(b))


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Its length; a row of the usual table at a time, |a| x |b| steps in all."""
    codes: dict[str, int] = {}
    a_N = np.array([codes.setdefault(word, len(codes)) for word in a])
    b_M = np.array([codes.setdefault(word, len(codes)) for word in b])
    best_M = np.zeros(len(b) + 1, dtype=np.int64)
    for code in a_N:
        # What extends a match, or keeps the best of either side; a row never falls.
        extended_M = np.where(b_M == code, best_M[:-1] + 1, best_M[1:])
        best_M[1:] = np.maximum.accumulate(extended_M)
    return int(best_M[-1])
