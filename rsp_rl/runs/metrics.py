"""The few of verl's logged numbers that a reader of a run looks at first."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

#: Names that verl and the guard log them under.
REWARD = "critic/score/mean"
RESPONSE_LENGTH = "response_length/mean"
GAP_MEAN = "rsp/logprob_gap_mean"
GAP_MAX = "rsp/logprob_gap_max"
STEP_SECONDS = "timing_s/step"


def held_out_accuracy(data: Mapping[str, float]) -> float | None:
    """Mean over sources of verl's `val-core/<source>/acc/mean@n` (n = 1: acc), if a step has any.

    Args:
        data: One step's logged metrics.
    """
    values = [
        value
        for name, value in data.items()
        if name.startswith("val-core/") and "/acc/mean@" in name
    ]
    return statistics.fmean(values) if values else None
