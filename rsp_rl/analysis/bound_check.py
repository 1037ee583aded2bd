"""Theorem 1 checked: nowhere does the attention mass on a soft prompt exceed its bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rsp_rl.basics.errors import RunFolderError

if TYPE_CHECKING:
    from rsp_rl.analysis.attention import LayerMass

_TOLERANCE = 1e-9
"""Of the comparison with the bound: rounding of float64."""


class BoundError(RunFolderError):
    """Theorem 1's bound was exceeded, which cannot be where attention was measured rightly."""


@dataclass
class BoundCheck:
    """Theorem 1 on everything that was measured.

    Attributes:
        checked: Layers x heads x queries.
        violations: Of these, how many exceed the bound.
        worst_slack: The least bound less mass.
        worst_at: Problem, sample, layer, head and position of it.
    """

    checked: int = 0
    violations: int = 0
    worst_slack: float = np.inf
    worst_at: dict[str, Any] = field(default_factory=dict)

    def add(self, layer: int, mass: LayerMass, first_query: int, where: dict[str, Any]) -> None:
        """Check a layer of one answer.

        Args:
            layer: Its number.
            mass: What was measured.
            first_query: Position of the first measured query.
            where: Problem and sample.
        """
        slack_HQ = (mass.bound - mass.soft_prompt).numpy()
        self.checked += slack_HQ.size
        self.violations += int((slack_HQ < -_TOLERANCE).sum())
        head, query = np.unravel_index(slack_HQ.argmin(), slack_HQ.shape)
        if slack_HQ[head, query] < self.worst_slack:
            self.worst_slack = float(slack_HQ[head, query])
            position = first_query + int(query)
            self.worst_at = {**where, "layer": layer, "head": int(head), "position": position}
