"""Filtered distributions, and draws from them.

Filters come in the order of Soft Thinking's public code: temperature, top-k, renormalise, nucleus,
renormalise, min-p, renormalise. vLLM's are the same.

Draws are Gumbel-max with noise keyed by the token's id: the largest of log p + g is a sample of p
(Gumbel 1954), and a change of p by rounding changes next to no draw. Of a whole vocabulary only the
likeliest tokens get noise of their own; all others together get one, of their total mass, and only
if that wins is one of them drawn. The distribution is the same.

Shape suffixes: `_N` positions, `_NV` the same with the vocabulary, `_NC` with the candidates,
`_NS` with the draws of a position; `_M` positions that draw from beyond the likeliest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

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
        low_N1 = log_NC[:, :1] + torch.log(torch.tensor(law.min_p, device=log_NC.device))
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
        scored = [(log_NC + noise.gumbel(slot, ids_NC)).argmax(1) for slot in slots]
        return torch.stack([ids_NC.gather(1, best[:, None])[:, 0] for best in scored], dim=1)
    return _draw_from_all(logits_NV.float() / law.temperature, noise, slots)


def _draw_from_all(scores_NV: torch.Tensor, noise: Noise, slots: Sequence[int]) -> torch.Tensor:
    vocabulary = scores_NV.shape[1]
    top_NC, ids_NC = scores_NV.topk(min(_OWN_NOISE, vocabulary), dim=1)
    log_NC = top_NC - scores_NV.logsumexp(1, keepdim=True)
    # A bound of what the others have: that they are drawn is seen from it first, then exactly.
    bound_N = torch.log((1 - log_NC.double().exp().sum(1)).clamp_min(0) + _ROUNDING).float()
    together = torch.tensor([_TOGETHER], device=scores_NV.device)
    drawn = []
    for slot in slots:
        own_NC = log_NC + noise.gumbel(slot, ids_NC)
        best_N, at_N = own_NC.max(1)
        ids_N = ids_NC.gather(1, at_N[:, None])[:, 0]
        if vocabulary > _OWN_NOISE:
            gumbel_N = noise.gumbel(slot, together)[:, 0]
            rows = (bound_N + gumbel_N > best_N).nonzero()[:, 0]
            if len(rows):
                every_MV = scores_NV[rows].double()
                others_MV = every_MV.scatter(1, ids_NC[rows], -torch.inf)
                log_mass_M = others_MV.logsumexp(1) - every_MV.logsumexp(1)
                won_M = log_mass_M + gumbel_N[rows] > best_N[rows]
                rows = rows[won_M]
                uniform_M1 = noise.at(rows).uniform(slot, together + 1)
                ids_N[rows] = _chosen(others_MV[won_M], uniform_M1)
        drawn.append(ids_N)
    return torch.stack(drawn, dim=1)


def _chosen(scores_MV: torch.Tensor, uniform_M1: torch.Tensor) -> torch.Tensor:
    """A token of each row, by the inverse of its cumulative distribution, [M]."""
    cumulative_MV = torch.softmax(scores_MV, 1).cumsum(1)
    at_M = torch.searchsorted(cumulative_MV, uniform_M1 * cumulative_MV[:, -1:])[:, 0]
    # Rounding may lead beyond the last token that has any mass.
    index_V = torch.arange(scores_MV.shape[1], device=scores_MV.device)
    return torch.minimum(at_M, torch.where(scores_MV > -torch.inf, index_V, 0).amax(1))
