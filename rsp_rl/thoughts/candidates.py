"""Filtered distributions, and draws from them.

Filters come in the order of Soft Thinking's public code: temperature, top-k, renormalise, nucleus,
renormalise, min-p, renormalise. vLLM's are the same.

Draws are Gumbel-max with noise keyed by the token's id: the largest of log p + g is a sample of p
(Gumbel 1954), and a change of p by rounding changes next to no draw. Of a whole vocabulary only the
likeliest tokens get noise of their own; all others together get one, of their total mass, and only
if that wins is one of them drawn. The distribution is the same.

Shape suffixes: `_N` positions, `_NV` the same with the vocabulary, `_NC` with the candidates,
`_NS` with the draws of a position; `_M` positions that may draw from beyond the likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rsp_rl.thoughts.host import sent
from rsp_rl.thoughts.law import FilteredLaw
from rsp_rl.thoughts.noise import Noise

#: Tokens of a whole vocabulary that get noise of their own.
_OWN_NOISE = 64

#: No token has this id, nor the next: of the noise of all others together, and of the choice among
#: them. Padding of the vocabulary changes neither.
_TOGETHER = 1 << 40

#: More than what rounding takes from the sum of a distribution in float32.
_ROUNDING = 1e-5


def candidates(law: FilteredLaw, logits_NV: torch.Tensor, most: int) -> tuple[torch.Tensor, ...]:
    """The likeliest tokens of the filtered distribution.

    Args:
        law: Whose filters apply.
        logits_NV: Without a temperature.
        most: C, tokens wanted; a top-k keeps fewer.

    Returns:
        Log-probs, float32 [N, C], largest first, minus infinity for what was dropped, and ids,
        int64 [N, C]. The log-probs are of the filtered distribution where a filter cuts; else of
        the C tokens among themselves.
    """
    vocabulary = logits_NV.shape[1]
    if law.top_k:
        width = law.top_k
    elif law.top_p < 1:
        width = vocabulary  # the nucleus may be as large
    else:
        width = most
    scores_NC, ids_NC = logits_NV.topk(min(width, vocabulary), dim=1)
    log_NC = torch.log_softmax(scores_NC.float() / law.temperature, dim=1)
    if law.top_p < 1:
        p_NC = log_NC.exp()
        log_NC = log_NC.masked_fill(p_NC.cumsum(1) - p_NC >= law.top_p, -torch.inf)
    if law.min_p:
        low_N1 = log_NC[:, :1] + math.log(law.min_p)
        log_NC = log_NC.masked_fill(log_NC < low_N1, -torch.inf)
    if law.top_p < 1 or law.min_p:
        log_NC = torch.log_softmax(log_NC, dim=1)
    return log_NC[:, :most], ids_NC[:, :most]


def draw(
    law: FilteredLaw, logits_NV: torch.Tensor, noise: Noise, slots: Sequence[int]
) -> torch.Tensor:
    """Independent draws from the filtered distribution, int64 [N, S], one for each slot."""
    if law.top_k or law.top_p < 1 or law.min_p:
        log_NC, ids_NC = candidates(law, logits_NV, law.top_k or logits_NV.shape[1])
        return ids_NC.gather(1, (log_NC[:, None] + noise.gumbel(slots, ids_NC)).argmax(2))
    scores_NV = logits_NV.float()
    if law.temperature != 1:
        scores_NV = scores_NV / law.temperature
    return _draw_from_all(scores_NV, noise, slots)


def _draw_from_all(scores_NV: torch.Tensor, noise: Noise, slots: Sequence[int]) -> torch.Tensor:
    vocabulary = scores_NV.shape[1]
    top_NC, ids_NC = scores_NV.topk(min(_OWN_NOISE, vocabulary), dim=1)
    all_N1 = scores_NV.logsumexp(1, keepdim=True)
    log_NC = top_NC - all_N1
    # A bound of what the others have: that they are drawn is seen from it first, then exactly.
    bound_N = torch.log((1 - log_NC.double().exp().sum(1)).clamp_min(0) + _ROUNDING).float()
    best_NS, at_NS = (log_NC[:, None] + noise.gumbel(slots, ids_NC)).max(2)
    ids_NS = ids_NC.gather(1, at_NS)
    if vocabulary <= _OWN_NOISE:
        return ids_NS
    together = torch.tensor([_TOGETHER])
    gumbel_NS = sent(noise.gumbel(slots, together)[:, :, 0], scores_NV.device)
    rows = (bound_N[:, None] + gumbel_NS > best_NS).any(1).nonzero()[:, 0]
    if len(rows):
        others_MV = scores_NV[rows].double().scatter_(1, ids_NC[rows], -torch.inf)
        peak_M1 = others_MV.amax(1, keepdim=True).clamp_min(torch.finfo(torch.double).min)
        # The inverse of the cumulative distribution: what has no mass is no step of it.
        cumulative_MV = others_MV.sub_(peak_M1).exp_().cumsum_(1)
        mass_M1 = cumulative_MV[:, -1:]
        won_MS = peak_M1 + mass_M1.log() - all_N1[rows] + gumbel_NS[rows] > best_NS[rows]
        uniform_MS = sent(noise.at(rows).uniform(slots, together + 1)[:, :, 0], scores_NV.device)
        drawn_MS = torch.searchsorted(cumulative_MV, uniform_MS * mass_M1)
        # Where the others have no mass at all, they have not won.
        ids_NS[rows] = torch.where(won_MS, drawn_MS, ids_NS[rows])
    return ids_NS
