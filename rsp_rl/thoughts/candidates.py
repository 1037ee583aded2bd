"""Filtered distributions, and draws from them.

Filters come in the order of Soft Thinking's public code: temperature, top-k, renormalise, nucleus,
renormalise, min-p, renormalise. vLLM's are the same.

Draws are Gumbel-max with noise keyed by the token's id: the largest of log p + g is a sample of p
(Gumbel 1954), and a change of p by rounding changes next to no draw. Of a whole vocabulary only the
likeliest tokens get noise of their own; all others together get one, of their total mass, and only
if that wins is one of them drawn. The distribution is the same.

Shape suffixes: `_N` positions, `_NV` the same with the vocabulary, `_NC` with the candidates,
`_NS` with the draws of a position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rsp_rl.thoughts.law import FilteredLaw
from rsp_rl.thoughts.noise import Noise

#: Tokens of a whole vocabulary that get noise of their own.
_OWN_NOISE = 64

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
    # No token has these ids: the noise of all others together, and of the choice among them.
    together = torch.tensor([vocabulary], device=scores_NV.device)
    drawn = []
    for slot in slots:
        own_NC = log_NC + noise.gumbel(slot, ids_NC)
        best_N, at_N = own_NC.max(1)
        ids_N = ids_NC.gather(1, at_N[:, None])[:, 0]
        if vocabulary > _OWN_NOISE:
            gumbel_N = noise.gumbel(slot, together)[:, 0]
            for row in (bound_N + gumbel_N > best_N).nonzero()[:, 0].tolist():
                others_V = scores_NV[row].double().index_fill(0, ids_NC[row], -torch.inf)
                log_mass = others_V.logsumexp(0) - scores_NV[row].double().logsumexp(0)
                if log_mass + gumbel_N[row] > best_N[row]:
                    here = noise.at(torch.tensor([row], device=ids_N.device))
                    ids_N[row] = _chosen(others_V, here.uniform(slot, together + 1)[0, 0])
        drawn.append(ids_N)
    return torch.stack(drawn, dim=1)


def _chosen(scores_V: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """A token, by the inverse of the cumulative distribution."""
    cumulative_V = torch.softmax(scores_V, 0).cumsum(0)
    at = torch.searchsorted(cumulative_V, chosen * cumulative_V[-1])
    # Rounding may lead to a token of no mass.
    return at.clamp_max(int(torch.nonzero(scores_V > -torch.inf)[-1]))
