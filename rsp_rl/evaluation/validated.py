"""What training's own validation found at a step, held against what the evaluation finds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rsp_rl.evaluation.metrics import BenchmarkMetrics

#: Standard errors of a difference that chance does not explain.
_ERRORS = 3.0


def unlike_validation(
    validated: Mapping[str, float], evaluated: Mapping[str, BenchmarkMetrics]
) -> list[str]:
    """Benchmarks on which the two are further apart than chance, a sentence each.

    Args:
        validated: Accuracy in the training's validation at this step, by source of the problems.
        evaluated: Metrics by benchmark, named as the sources are.
    """
    found = []
    for name in sorted(validated.keys() & evaluated.keys()):
        there, here = validated[name], evaluated[name]["accuracy"]
        mean = (there + here) / 2
        error = math.sqrt(2 * mean * (1 - mean) / evaluated[name]["problems"])
        if abs(there - here) > _ERRORS * error:
            found.append(
                f"training's own validation at this step has {there:.1%} of {name} right, this "
                f"evaluation {here:.1%}, more than chance explains: were both asked alike (length, "
                "sampling, problems), and is this what was trained?"
            )
    return found
