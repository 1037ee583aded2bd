"""Neighbour mixing (N-GRPO, arXiv 2606.10768): a token's embedding among those nearest to it.

At a share `rate` of positions the input is a mixture of the embeddings of one token, the anchor,
and of the k - 1 that are nearest to it by cosine in the model's own table, as it is then; at all
others it is the sampled token's. Which positions they are is all that is drawn beside the tokens.
The score is the sampled token's.

In the authors' code the anchor is the likeliest token, whatever was sampled: the text then has a
token that the model has not read. Weights are the probabilities of anchor and neighbours,
renormalised, over what top-k and nucleus have left of them; here these filter the draw alone.

Shape suffixes: `_M` positions with a mixture, `_MK` its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsp_rl.thoughts.candidates import draw
from rsp_rl.thoughts.host import sent
from rsp_rl.thoughts.law import (
    Embedding,
    FilteredLaw,
    Moment,
    check_choice,
    check_number,
    check_whole,
)
from rsp_rl.thoughts.laws.token import token_log_probs
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.rows import Kind, Rows

ANCHORS = ("sampled", "likeliest")

#: Of a position's draws the one that says whether it has a mixture; the token's is 0.
_WHETHER = 1


@dataclass(frozen=True)
class Neighbours(FilteredLaw):
    """The anchor and its nearest tokens by their probabilities, at some positions.

    A rate of 0 is ordinary sampling; so are a k and a share of 1 with the sampled token as anchor.
    Defaults are between the authors' scripts, which have k 2 and rate .1 for 1.5B, k 3 and rate .15
    for 7B parameters, and the likeliest token.

    Attributes:
        k: Tokens in a mixture, the anchor among them.
        rate: Share of positions that have one.
        anchor: The token whose neighbours are mixed in: `sampled`, or `likeliest` as in the
            authors' code.
        share: Weight of the anchor, its neighbours having equal parts of the rest; None for all by
            their probabilities.
    """

    k: int = 3
    rate: float = 0.1
    anchor: str = "sampled"
    share: float | None = None

    name = "neighbours"
    kind = Kind.MIX
    searches_all = True
    source = "arXiv 2606.10768"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        check_number("rate", self.rate, least=0, most=1)
        check_choice("anchor", self.anchor, ANCHORS)
        if self.share is not None:
            check_number("share", self.share, least=0, most=1)
        super().__post_init__()

    @property
    def slots(self) -> int:
        """The k; before the likeliest token and its neighbours comes the sampled one."""
        return self.k + (self.anchor == "likeliest")

    @property
    def deterministic(self) -> bool:
        """Of one token that is left, if it is mixed everywhere or nowhere."""
        return super().deterministic and (self.rate in (0, 1) or 1 in (self.k, self.share))

    def step(self, moment: Moment) -> Rows:
        """See `InputLaw.step`; the sampled token is emitted."""
        logits_NV = moment.logits_NV
        ids_N1 = draw(self, logits_NV, moment.noise, [0])
        weights_NK = torch.zeros(len(ids_N1), self.slots, device=ids_N1.device)
        weights_NK[:, 0] = 1
        rows = Rows.of_kind(Kind.TOKEN, ids_N1.expand(-1, self.slots), weights_NK)
        if not (mixed := self._mixed(moment.noise)):
            return rows
        at_M = sent(mixed, ids_N1.device)
        ids_MK, weights_MK = self._mixtures(ids_N1[at_M], logits_NV[at_M], moment.embedding)
        return Rows(
            rows.kind_N.index_fill(0, at_M, int(self.kind)),
            rows.ids_NK.index_copy(0, at_M, ids_MK.int()),
            rows.values_NK.index_copy(0, at_M, weights_MK),
        )

    def weights(self, rows: Rows) -> torch.Tensor:
        """See `InputLaw.weights`: they are what is recorded."""
        return rows.values_NK

    def log_prob(self, rows: Rows, logits_NV: torch.Tensor, embedding: Embedding) -> torch.Tensor:
        """Of the sampled token, [N]: the rest follows from it, or is drawn by no policy."""
        return token_log_probs(self, rows, logits_NV)[:, 0]

    def _mixed(self, noise: Noise) -> list[int]:
        """Positions that have a mixture; known on the host, so that no device is waited for."""
        uniform_N = noise.uniform(_WHETHER, torch.zeros(1, dtype=torch.int64))[:, 0]
        return (uniform_N < self.rate).nonzero()[:, 0].tolist()

    def _mixtures(
        self, sampled_M1: torch.Tensor, logits_MV: torch.Tensor, embedding: Embedding
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their weights, [M, slots] each."""
        sampled = self.anchor == "sampled"
        anchor_M = sampled_M1[:, 0] if sampled else logits_MV.argmax(1)
        ids_MK = embedding.nearest(anchor_M, self.k, logits_MV.shape[1])
        scores_MK = logits_MV.gather(1, ids_MK).float()
        if self.share is None:
            # Softmax over these alone: what the others have cancels.
            weights_MK = torch.softmax(scores_MK / self.temperature, dim=1)
        else:
            weights_MK = self._by_share(scores_MK > -torch.inf)
        if sampled:
            return ids_MK, weights_MK
        nothing_M1 = torch.zeros_like(weights_MK[:, :1])
        return torch.cat([sampled_M1, ids_MK], 1), torch.cat([nothing_M1, weights_MK], 1)

    def _by_share(self, there_MK: torch.Tensor) -> torch.Tensor:
        """Weights whatever the logits are, but for ids without a token, which have none."""
        assert self.share is not None
        others_MK = there_MK[:, 1:].float()
        count_M1 = others_MK.sum(1, keepdim=True)
        others_MK = (1 - self.share) * others_MK / count_M1.clamp_min(1)
        own_M1 = torch.where(count_M1 > 0, self.share, 1.0)
        return torch.cat([own_M1, others_MK], dim=1)
