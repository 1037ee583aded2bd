"""Soft thinking with Gumbel noise (arXiv 2508.03440), and its scores (SofT-GRPO, arXiv 2511.06411).

With f(x) = -x - exp(-x), the log-density of Gumbel(0, 1), the action is what is recorded,
g' = log p + g of the k kept tokens; p is renormalised over them. Three scores of it:

- `paper`: the sum of f(g'_i - log p_i);
- `code`: what the authors' trainer computes: p + 1e-6, residuals clamped to [-1.5, 3], and the
  mean over the tokens whose current log p is above -3. It is no log-density: its gradient does not
  vanish in expectation;
- `concrete`: the density of the mixture itself (Maddison et al. 2017), which forgets the one
  degree of freedom of g' that the model never sees.

Shape suffixes: `_NK` positions and kept tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rsp_rl.thoughts.candidates import candidates
from rsp_rl.thoughts.law import (
    Embedding,
    FilteredLaw,
    Moment,
    check_choice,
    check_temperature,
    check_whole,
)
from rsp_rl.thoughts.laws.soft_thinking import padded_rows
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.rows import Kind, Rows

SCORES = ("paper", "code", "concrete")

#: Of the authors' code: bounds of residuals, what is added to p, least log p that counts.
_RESIDUALS, _ADDED, _LEAST = (-1.5, 3.0), 1e-6, -3.0


@dataclass(frozen=True)
class Gumbel(FilteredLaw):
    """Weights softmax((log p + g) / tau) of the k likeliest tokens, g ~ Gumbel(0, 1).

    The token of the largest g' is emitted, which is a sample of p; with tau to 0 it is all that is
    left. Defaults are those of the authors' script; SofT-GRPO trains with k 5, tau .1,
    temperature 1, top-p .95 and top-k 5.

    Attributes:
        k: Tokens in a mixture.
        tau: Temperature of the mixture, 1e-6 to 1e6.
        score: Which log-prob: `paper`, `code` or `concrete`.
        clamp: Whether noise is clamped to [-1.5, 3], as SofT-GRPO's rollouts do.
    """

    k: int = 10
    tau: float = 0.5
    score: str = "paper"
    clamp: bool = False
    temperature: float = 0.6
    top_k: int = 30
    top_p: float = 0.95
    min_p: float = 0.0

    name = "gumbel"
    kind = Kind.MIX
    source = "arXiv 2508.03440, 2511.06411"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        check_temperature("tau", self.tau)
        check_choice("score", self.score, SCORES)
        super().__post_init__()

    @property
    def slots(self) -> int:
        """The k of a mixture."""
        return self.k

    @property
    def deterministic(self) -> bool:
        """Of one token that is kept the noise cancels."""
        return self.k == 1 or super().deterministic

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`."""
        log_NK, ids_NK = candidates(self, moment.logits_NV, self.k)
        log_NK = torch.log_softmax(log_NK, dim=1)
        noise_NK = moment.noise.gumbel(0, ids_NK)
        if self.clamp:
            noise_NK = noise_NK.clamp(*_RESIDUALS)
        values_NK, at_NK = (log_NK + noise_NK).sort(dim=1, descending=True)
        return padded_rows(self, ids_NK.gather(1, at_NK), values_NK, empty=-torch.inf)

    def weights(self, rows: Rows) -> torch.Tensor:
        """See `InputLaw.weights`."""
        return torch.softmax(rows.values_NK / self.tau, dim=1)

    def log_prob(self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """See the module, [N]; which tokens were kept is taken as given."""
        kept_NK, log_NK = self._kept(rows, logits_NV)
        # Where nothing was kept there is no number to compute with, and none that counts.
        log_NK = log_NK.masked_fill(~kept_NK, 0.0)
        values_NK = rows.values_NK.masked_fill(~kept_NK, 0.0)
        if self.score == "concrete":
            return self._concrete(values_NK, log_NK, kept_NK)
        if self.score == "code":
            log_NK = torch.log(log_NK.exp() + _ADDED)
            kept_NK = kept_NK & (log_NK > _LEAST)
        residuals_NK = values_NK - log_NK
        if self.score == "code":
            residuals_NK = residuals_NK.clamp(*_RESIDUALS)
        terms_NK = torch.where(kept_NK, -residuals_NK - torch.exp(-residuals_NK), 0.0)
        if self.score == "code":
            return terms_NK.sum(1) / kept_NK.sum(1).clamp_min(1)
        return terms_NK.sum(1)

    def gap(
        self, rows: Rows, noise: Noise, logits_NV: torch.Tensor, embedding: Embedding
    ) -> torch.Tensor:
        """See `InputLaw.gap`: what is recorded less the noise is the log p of then."""
        kept_NK, log_NK = self._kept(rows, logits_NV)
        noise_NK = noise.gumbel(0, rows.ids_NK)
        if self.clamp:
            noise_NK = noise_NK.clamp(*_RESIDUALS)
        apart_NK = (rows.values_NK - noise_NK - log_NK).abs()
        return torch.where(kept_NK, apart_NK, 0.0).sum(1) / kept_NK.sum(1)

    def _kept(self, rows: Rows, logits_NV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which tokens were kept, and their log p among themselves, minus infinity for others."""
        kept_NK = rows.values_NK > -torch.inf
        scores_NK = logits_NV.gather(1, rows.ids_NK.long()).float() / self.temperature
        return kept_NK, torch.log_softmax(scores_NK.masked_fill(~kept_NK, -torch.inf), dim=1)

    def _concrete(
        self, values_NK: torch.Tensor, log_NK: torch.Tensor, kept_NK: torch.Tensor
    ) -> torch.Tensor:
        """log c(y) of y = softmax(g' / tau), from g': y itself underflows at a small tau."""
        count_N = kept_NK.sum(1)
        masked_NK = (values_NK / self.tau).masked_fill(~kept_NK, -torch.inf)
        log_y_NK = torch.log_softmax(masked_NK, dim=1).masked_fill(~kept_NK, 0.0)
        inner_NK = (log_NK - self.tau * log_y_NK).masked_fill(~kept_NK, -torch.inf)
        return (
            torch.lgamma(count_N.float())
            + (count_N - 1) * math.log(self.tau)
            + torch.where(kept_NK, log_NK - (self.tau + 1) * log_y_NK, 0.0).sum(1)
            - count_N * inner_NK.logsumexp(1)
        )
