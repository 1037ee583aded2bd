"""Soft Thinking (arXiv 2505.15778): the likeliest tokens' embeddings by their probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsp_rl.thoughts.candidates import candidates
from rsp_rl.thoughts.law import FilteredLaw, Moment, check_whole
from rsp_rl.thoughts.rows import Kind, Rows


@dataclass(frozen=True)
class SoftThinking(FilteredLaw):
    """The k likeliest of the filtered distribution, renormalised; no randomness, no score.

    Defaults are those of the authors' scripts.

    Attributes:
        k: Tokens in a mixture.
    """

    k: int = 10
    temperature: float = 0.6
    top_k: int = 30
    top_p: float = 0.95
    min_p: float = 0.001

    name = "soft_thinking"
    kind = Kind.MIX
    source = "arXiv 2505.15778"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        super().__post_init__()

    @property
    def slots(self) -> int:
        """The k of a mixture."""
        return self.k

    @property
    def deterministic(self) -> bool:
        """It is."""
        return True

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`; the likeliest token is emitted."""
        log_NK, ids_NK = candidates(self, moment.logits_NV, self.k)
        return padded_rows(self, ids_NK, torch.softmax(log_NK, dim=1), empty=0.0)

    def weights(self, rows: Rows) -> torch.Tensor:
        """See `InputLaw.weights`: they are what is recorded."""
        return rows.values_NK


def padded_rows(
    law: FilteredLaw, ids_NC: torch.Tensor, values_NC: torch.Tensor, *, empty: float
) -> Rows:
    """Rows of K slots of C candidates, which a top-k below k leaves fewer."""
    missing = law.slots - ids_NC.shape[1]
    if missing > 0:
        ids_NC = torch.cat([ids_NC, ids_NC[:, :1].expand(-1, missing)], dim=1)
        values_NC = torch.nn.functional.pad(values_NC, (0, missing), value=empty)
    return Rows.of_kind(law.kind, ids_NC, values_NC)
