"""How a dial changes over the training steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

#: Share of the way from start to end that is done at a share of the time, both in [0, 1].
SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda time: 0.0,
    "linear": lambda time: time,
    "cosine": lambda time: (1 - math.cos(math.pi * time)) / 2,
}


@dataclass(frozen=True)
class Schedule:
    """The course of a dial from its value at step 1 to `end` at step `steps`, where it stays.

    Attributes:
        shape: A key of `SHAPES`; `constant` has neither end nor steps.
        end: The last value.
        steps: Step at which it is reached, at least 2. Not tied to the length of the run, so that
            a run that is prolonged goes on as it began.
    """

    shape: str = "constant"
    end: float | None = None
    steps: int | None = None

    def value(self, start: float, step: int) -> float:
        """The dial at a step.

        Args:
            start: Its value at step 1 (and before: validation counts from 0).
            step: Global step.
        """
        if self.end is None or self.steps is None or step <= 1:
            return start
        if step >= self.steps:
            return self.end  # and not start + (end - start), which may round
        return start + (self.end - start) * SHAPES[self.shape]((step - 1) / (self.steps - 1))

    def largest(self, start: float) -> float:
        """The largest value on the way; all shapes are monotone."""
        return start if self.end is None else max(start, self.end)
