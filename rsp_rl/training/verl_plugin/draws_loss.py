"""verl's clipped policy loss with a ratio for each of a position's draws (Multiplex Thinking).

A position's loss is the sum of its draws' (the authors' `compute_policy_loss` does the same on a
tensor [B, T, K]); positions are aggregated as ever. A token has one draw.

Shape suffixes: `_BT` batch and response, `_BTK` the same with draws.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, register_policy_loss

#: verl's `policy_loss.loss_mode`.
DRAWS_LOSS = "rsp_draws"

#: What stands in for a draw that is not there: a log-prob is above 0 by rounding at most.
ABSENT = 1.0


@register_policy_loss(DRAWS_LOSS)
def draws_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Arguments and result as `compute_policy_loss_vanilla`, but for two of them.

    Args:
        old_log_prob: [B, T, K], `ABSENT` where there is no draw.
        log_prob: [B, T, K].
        advantages: [B, T].
        response_mask: [B, T].
        loss_agg_mode: verl's.
        config: verl's.
        rollout_is_weights: None: refused with a law.

    Raises:
        ValueError: If log-probs are not by draw.
    """
    if old_log_prob.ndim != 3 or log_prob.shape != old_log_prob.shape:
        raise ValueError(
            f"{DRAWS_LOSS} needs log-probs by draw, and has {list(old_log_prob.shape)} and "
            f"{list(log_prob.shape)}; set law.clip_per_draw=true"
        )
    present_BTK = (old_log_prob < ABSENT) & response_mask.bool()[..., None]
    # Without an advantage a draw has no loss; positions are counted as ever.
    losses, sums = [], dict[str, float]()
    for k in range(old_log_prob.shape[2]):
        there_BT = present_BTK[..., k]
        loss, metrics = compute_policy_loss_vanilla(
            old_log_prob=torch.where(there_BT, old_log_prob[..., k], 0.0),
            log_prob=torch.where(there_BT, log_prob[..., k], 0.0),
            advantages=advantages * there_BT,
            response_mask=response_mask,
            loss_agg_mode=loss_agg_mode,
            config=config,
            rollout_is_weights=rollout_is_weights,
        )
        losses.append(loss)
        for name, mean in metrics.items():
            sums[name] = sums.get(name, 0.0) + mean
    # verl's are means over positions; these are over draws.
    draws = present_BTK.sum().item() / max(1, response_mask.sum().item())
    return torch.stack(losses).sum(), {name: total / max(draws, 1) for name, total in sums.items()}
