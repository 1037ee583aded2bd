"""Ordinary sampling as a law: what a model does without any."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsp_rl.thoughts.candidates import draw
from rsp_rl.thoughts.law import Embedding, FilteredLaw, Moment
from rsp_rl.thoughts.rows import Kind, Rows


@dataclass(frozen=True)
class Token(FilteredLaw):
    """One token, sampled, by its own embedding: the reference that the other laws reduce to."""

    name = "token"
    kind = Kind.TOKEN

    @property
    def slots(self) -> int:
        """One."""
        return 1

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`."""
        ids_N1 = draw(self, moment.logits_NV, moment.noise, [0])
        return Rows.of_kind(self.kind, ids_N1, torch.ones_like(ids_N1, dtype=torch.float32))

    def weights(self, rows: Rows) -> torch.Tensor:
        """See `InputLaw.weights`."""
        return rows.values_NK

    def log_prob(self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """Of the token, under the temperature and without filters, [N]."""
        return token_log_probs(self, rows, logits_NV)[:, 0]


def token_log_probs(law: FilteredLaw, rows: Rows, logits_NV: torch.Tensor) -> torch.Tensor:
    """Of every slot's token, under the law's temperature and without filters, [N, K].

    Filters are left out as they are for ordinary rollouts: what they keep changes with the policy,
    and renormalising over it would make a ratio of two policies infinite.
    """
    scores_NV = logits_NV / law.temperature
    own_NK = scores_NV.gather(1, rows.ids_NK.long())
    return own_NK - scores_NV.logsumexp(1, keepdim=True)
