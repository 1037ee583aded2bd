"""The loss with a ratio for each draw, against its definition in plain numpy and float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from parity.actor import compose
from rsp_rl.training.verl_plugin.draws_loss import ABSENT, DRAWS_LOSS, draws_loss

LOW, HIGH, DUAL = 0.2, 0.28, 10.0
#: On both sides of every boundary.
RATIOS = (0.3, 0.79, 0.81, 1.0, 1.27, 1.29, 5.0, 9.9, 10.1)
DRAWS = ((3, 3, 1), (3, 1, 0), (1, 1, 1), (3, 3, 3))
ADVANTAGES = (1.0, -0.5, 2.0, -1.5)


@pytest.fixture
def config():
    from verl.utils.config import omega_conf_to_dataclass

    config = omega_conf_to_dataclass(compose().actor_rollout_ref.actor)
    config.global_batch_info.update(dp_size=1, batch_num_tokens=11, global_batch_size=4)
    return config


def tensors():
    walk = itertools.cycle(RATIOS)
    generator = np.random.default_rng(0)
    new = np.full((4, 3, 3), 0.0)
    old = np.full((4, 3, 3), ABSENT)
    mask = np.zeros((4, 3))
    for row, draws in enumerate(DRAWS):
        for at, count in enumerate(draws):
            mask[row, at] = count > 0
            new[row, at, :count] = -generator.exponential(1.0, count) - 0.01
            ratios = [next(walk) for _ in range(count)]
            # An old log-prob may not be above 0.
            new[row, at, :count] -= 3
            old[row, at, :count] = new[row, at, :count] - np.log(ratios)
    return old, new, mask


def wanted(old, new, mask, mode: str) -> tuple[float, np.ndarray]:
    """Loss and its gradient by the log-probs."""
    positions = np.zeros((4, 3))
    slopes = np.zeros((4, 3, 3))
    for row, at, k in np.ndindex(4, 3, 3):
        if old[row, at, k] > 0 or not mask[row, at]:
            continue
        ratio, advantage = np.exp(new[row, at, k] - old[row, at, k]), ADVANTAGES[row]
        kept = min(ratio * advantage, np.clip(ratio, 1 - LOW, 1 + HIGH) * advantage)
        if advantage < 0:
            kept = max(kept, DUAL * advantage)
            active = 1 - LOW < ratio < DUAL
        else:
            active = ratio < 1 + HIGH
        positions[row, at] -= kept
        slopes[row, at, k] = -advantage * ratio * active
    if mode == "token-mean":
        return positions.sum() / 11, slopes / 11
    return positions.sum() / 4, slopes / 4


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum"])
def test_every_draw_is_clipped_by_itself(config, mode: str) -> None:
    old, new, mask = tensors()
    log_prob = torch.tensor(new, requires_grad=True)
    loss, metrics = draws_loss(
        torch.tensor(old),
        log_prob,
        torch.tensor(ADVANTAGES, dtype=torch.float64)[:, None].expand(4, 3),
        torch.tensor(mask),
        mode,
        config,
    )
    loss.backward()
    right, slopes = wanted(old, new, mask, mode)
    assert loss.item() == pytest.approx(right, abs=1e-9)
    np.testing.assert_allclose(log_prob.grad.numpy(), slopes, rtol=0, atol=1e-9)
    assert 0 < metrics["actor/pg_clipfrac"] < 1


def test_one_draw_is_verls_own_loss(config) -> None:
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, get_policy_loss_fn

    old, new, mask = (torch.tensor(part) for part in tensors())
    first, advantages = old[..., :1], torch.tensor(ADVANTAGES)[:, None].expand(4, 3)
    loss, metrics = get_policy_loss_fn(DRAWS_LOSS)(
        old_log_prob=first,
        log_prob=new[..., :1],
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode="token-mean",
        config=config,
        rollout_is_weights=None,
    )
    theirs, of_theirs = compute_policy_loss_vanilla(
        first[..., 0], new[..., 0], advantages, mask, "token-mean", config
    )
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-9)
    assert metrics == pytest.approx(of_theirs, abs=1e-6)


def test_a_draw_that_was_certain_has_its_loss(config) -> None:
    """Its log-prob may be rounded to a little above 0."""
    old = torch.full((4, 3, 2), 1e-7)
    old[..., 1] = ABSENT
    new, mask = torch.zeros(4, 3, 2, requires_grad=True), torch.ones(4, 3)
    draws_loss(old, new, torch.ones(4, 3), mask, "token-mean", config)[0].backward()
    assert (new.grad[..., 0] < 0).all()
    assert not new.grad[..., 1].any()


def test_log_probs_of_positions_are_refused(config) -> None:
    numbers = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="needs log-probs by draw"):
        draws_loss(numbers, numbers, numbers, numbers, "token-mean", config)
