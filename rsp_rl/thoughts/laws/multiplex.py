"""Multiplex Thinking (arXiv 2601.08808): the mean of K sampled tokens' embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.thoughts.candidates import draw
from rsp_rl.thoughts.law import Embedding, FilteredLaw, Moment, check_choice, check_whole
from rsp_rl.thoughts.laws.token import token_log_probs
from rsp_rl.thoughts.rows import Kind, Rows

#: Most draws of a position: each is recorded, and has noise for all that it may be.
MOST_DRAWS = 1024

WEIGHTINGS = ("mean", "probability")
DUPLICATES = ("each", "once")


@dataclass(frozen=True)
class Multiplex(FilteredLaw):
    """K draws with replacement; the first is emitted. K = 1 is ordinary sampling.

    Attributes:
        k: Draws, K; at most 1,024.
        weighting: `mean`, or `probability`: by the probabilities of the drawn tokens, renormalised.
        duplicates: With `probability`, whether a token that is drawn twice counts `each` time, as
            in the authors' code, or `once`, as in the paper's formula.
    """

    k: int = 3
    weighting: str = "mean"
    duplicates: str = "each"

    name = "multiplex"
    kind = Kind.MIX
    source = "arXiv 2601.08808"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        if self.k > MOST_DRAWS:
            raise ConfigError(f"law.k={self.k} draws a position; at most {MOST_DRAWS:,}")
        check_choice("weighting", self.weighting, WEIGHTINGS)
        check_choice("duplicates", self.duplicates, DUPLICATES)
        if self.duplicates == "once" and self.weighting != "probability":
            raise ConfigError("law.duplicates=once needs law.weighting=probability; a mean has all")
        super().__post_init__()

    @property
    def slots(self) -> int:
        """The K draws."""
        return self.k

    def check(self, vocabulary: int) -> None:
        """See `InputLaw.check`; draws are with replacement and may be as many as one likes."""
        if self.top_k > vocabulary:
            super().check(vocabulary)

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`."""
        ids_NK = draw(self, moment.logits_NV, moment.noise, range(self.k))
        if self.weighting == "mean":
            weights_NK = torch.full(ids_NK.shape, 1 / self.k, device=ids_NK.device)
        else:
            # Softmax over the drawn alone: what the others have cancels.
            scores_NK = moment.logits_NV.gather(1, ids_NK).float() / self.temperature
            if self.duplicates == "once":
                scores_NK = scores_NK.masked_fill(_seen_before(ids_NK), -torch.inf)
            weights_NK = torch.softmax(scores_NK, dim=1)
        return Rows.of_kind(self.kind, ids_NK, weights_NK)

    def weights(self, rows: Rows) -> torch.Tensor:
        """See `InputLaw.weights`: they are what is recorded."""
        return rows.values_NK

    def log_prob(self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """Of every draw by itself, [N, K]: their sum is the position's."""
        return token_log_probs(self, rows, logits_NV)


def _seen_before(ids_NK: torch.Tensor) -> torch.Tensor:
    """Whether a slot repeats an earlier one, [N, K]."""
    equal_NKK = ids_NK[:, :, None] == ids_NK[:, None, :]
    return equal_NKK.tril(-1).any(2)
