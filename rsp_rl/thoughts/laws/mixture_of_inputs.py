"""Mixture of Inputs (arXiv 2505.14827): the sampled token, softened by what else was likely."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rsp_rl.thoughts.candidates import draw
from rsp_rl.thoughts.law import Embedding, FilteredLaw, Moment, check_number, check_whole
from rsp_rl.thoughts.laws.token import token_log_probs
from rsp_rl.thoughts.rows import Kind, Rows


@dataclass(frozen=True)
class MixtureOfInputs(FilteredLaw):
    """H (p + beta x) / (1 + beta) + (1 - H) x of the sampled x, as the authors' code has it.

    p is over the k likeliest tokens, H its entropy over its largest, log k. A sampled token beyond
    them has a slot of its own.

    Attributes:
        k: Tokens of p, at least 2.
        beta: Weight of the sampled token; the larger, the nearer to ordinary sampling.
    """

    k: int = 20
    beta: float = 1.0

    name = "moi"
    kind = Kind.MIX
    source = "arXiv 2505.14827"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 2)
        check_number("beta", self.beta, least=0)
        super().__post_init__()

    @property
    def slots(self) -> int:
        """The sampled token, then the k."""
        return self.k + 1

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`; the sampled token is emitted."""
        sampled_N1 = draw(self, moment.logits_NV, moment.noise, [0])
        scores_NC, ids_NC = moment.logits_NV.topk(self.k, dim=1)
        p_NC = torch.softmax(scores_NC.float() / self.temperature, dim=1)
        entropy_N1 = torch.special.entr(p_NC).sum(1, keepdim=True) / math.log(self.k)
        of_p_N1 = entropy_N1 / (1 + self.beta)
        weights_NK = torch.cat([1 - of_p_N1, of_p_N1 * p_NC], dim=1)
        return Rows.of_kind(self.kind, torch.cat([sampled_N1, ids_NC], dim=1), weights_NK)

    def weights(self, rows: Rows) -> torch.Tensor:
        """See `InputLaw.weights`: they are what is recorded."""
        return rows.values_NK

    def log_prob(self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """Of the sampled token, [N]: the rest follows from it."""
        return token_log_probs(self, rows, logits_NV)[:, 0]
