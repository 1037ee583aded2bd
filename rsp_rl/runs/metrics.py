"""The few of verl's logged numbers that a reader of a run looks at first."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping

#: Names that verl and the guard log them under.
REWARD = "critic/score/mean"
RESPONSE_LENGTH = "response_length/mean"
GAP_MEAN = "rsp/logprob_gap_mean"
GAP_MAX = "rsp/logprob_gap_max"
STEP_SECONDS = "timing_s/step"

_HELD_OUT = re.compile(r"val-core/(.+)/acc/mean@\d+")


def largest(steps: Iterable[Mapping[str, float | None]], name: str) -> float | None:
    """Of the steps that have such a number; a gap is none where all tokens are of older policies.

    Args:
        steps: Logged metrics.
        name: Of the number.
    """
    return max((data[name] for data in steps if data.get(name) is not None), default=None)


def held_out_accuracy(data: Mapping[str, float]) -> float | None:
    """Mean of `held_out_by_source`, if a step has any.

    Args:
        data: One step's logged metrics.
    """
    values = held_out_by_source(data).values()
    return statistics.fmean(values) if values else None


def held_out_by_source(data: Mapping[str, float]) -> dict[str, float]:
    """verl's `val-core/<source>/acc/mean@n` (n = 1: acc) by source of the problems.

    Args:
        data: One step's logged metrics.
    """
    matches = ((_HELD_OUT.fullmatch(name), value) for name, value in data.items())
    return {match[1]: value for match, value in matches if match}
