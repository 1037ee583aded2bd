"""NEFTune's noise on the tokens that are generated (after arXiv 2310.05914).

The paper adds noise to the embeddings of a text that a model is fine-tuned on, uniform in [-1, 1]
times alpha / sqrt(L d) with L its length, so that the noise of a whole text is as long whatever L
is. A text that is being generated has no length yet: L is a setting. Noise is in absolute units, as
it is there, and depends on no policy: the score is the sampled token's.

Shape suffixes: `_ND` positions and the hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rsp_rl.thoughts.candidates import draw
from rsp_rl.thoughts.law import Embedding, FilteredLaw, Moment, check_number, check_whole
from rsp_rl.thoughts.laws.token import token_log_probs
from rsp_rl.thoughts.rows import Kind, Rows

#: Of a position's draws the noise's; the token's is 0.
_NOISE = 1


@dataclass(frozen=True)
class Neftune(FilteredLaw):
    """The sampled token's embedding plus uniform noise; an alpha of 0 is ordinary sampling.

    Attributes:
        alpha: Size of the noise, at most 10,000; 5 to 15 in the paper.
        length: L, tokens that the noise is made for; 512 for want of one in the paper.
    """

    alpha: float = 5.0
    length: int = 512

    name = "neftune"
    kind = Kind.MIX_NOISE
    dense = True
    source = "arXiv 2310.05914"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, least=0, most=1e4)
        check_whole("length", self.length, 1)
        super().__post_init__()

    @property
    def slots(self) -> int:
        """The sampled token."""
        return 1

    @property
    def deterministic(self) -> bool:
        """Of one token that is left without noise."""
        return super().deterministic and self.alpha == 0

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`; what is recorded is the input in the model's dtype."""
        ids_N1 = draw(self, moment.logits_NV, moment.noise, [0])
        rows_ND = moment.embedding.rows(ids_N1[:, 0])
        index_D = torch.arange(rows_ND.shape[1], device=rows_ND.device)
        scale = self.alpha / math.sqrt(self.length * len(index_D))
        noise_ND = 2 * moment.noise.uniform(_NOISE, index_D).float() - 1
        # Rounded here, so that engine and trainer have the same.
        dense_ND = (rows_ND.float() + scale * noise_ND).to(rows_ND.dtype)
        values_N1 = torch.ones(len(ids_N1), 1, device=ids_N1.device)
        return Rows.of_kind(self.kind, ids_N1, values_N1, dense_ND)

    def weights(self, rows: Rows) -> torch.Tensor:
        """Of the sampled token: all."""
        return rows.values_NK

    def log_prob(self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """Of the sampled token, [N]."""
        return token_log_probs(self, rows, logits_NV)[:, 0]
