"""Soft thinking with Dirichlet noise (arXiv 2508.03440)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsp_rl.thoughts.candidates import candidates
from rsp_rl.thoughts.law import FilteredLaw, Moment, check_number, check_whole
from rsp_rl.thoughts.laws.soft_thinking import padded_rows
from rsp_rl.thoughts.rows import Kind, Rows


@dataclass(frozen=True)
class Dirichlet(FilteredLaw):
    """Weights w ~ Dir(alpha q) of the filtered q, the k largest of them renormalised.

    Tokens that the filters drop have weight 0. No score: the density is not one of the k that are
    kept. Defaults are those of the authors' script.

    Attributes:
        k: Tokens in a mixture.
        alpha: Concentration, 1e-6 to 1e9: the larger, the nearer to q.
    """

    k: int = 10
    alpha: float = 4.0
    temperature: float = 0.6
    top_k: int = 30
    top_p: float = 0.95
    min_p: float = 0.0

    name = "dirichlet"
    kind = Kind.MIX
    source = "arXiv 2508.03440"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        check_number("alpha", self.alpha, least=1e-6, most=1e9)
        super().__post_init__()

    @property
    def slots(self) -> int:
        """The k of a mixture."""
        return self.k

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`; the token of the largest weight is emitted."""
        log_NC, ids_NC = candidates(self, moment.logits_NV, self.top_k or moment.logits_NV.shape[1])
        dropped_NC = log_NC.isinf()
        # A dropped token has shape 0, of which there is no gamma distribution.
        shape_NC = (log_NC.exp() * self.alpha).masked_fill(dropped_NC, 1.0).clamp_min(1e-30)
        drawn_NC = moment.noise.log_gamma(0, ids_NC, shape_NC)
        drawn_NC = drawn_NC.masked_fill(dropped_NC, -torch.inf)
        log_NK, at_NK = drawn_NC.topk(min(self.k, drawn_NC.shape[1]), dim=1)
        return padded_rows(self, ids_NC.gather(1, at_NK), torch.softmax(log_NK, dim=1), empty=0.0)

    def weights(self, rows: Rows) -> torch.Tensor:
        """See `InputLaw.weights`: they are what is recorded."""
        return rows.values_NK
