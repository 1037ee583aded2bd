"""The trainer's modes, and what a run whose rollouts outlive an update cannot be."""

from __future__ import annotations

import logging
import math

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError

logger = logging.getLogger(__name__)

SYNCHRONOUS, ASYNCHRONOUS = TRAINER_MODES = "rsp_sync", "rsp_async"
"""`trainer.v1.trainer_mode`: whether a step waits for all of its rollouts, or for enough of those
that are under way."""


def check_asynchronous(config: DictConfig) -> None:
    """Refuse what rollouts that go on under another policy cannot be; say what they are.

    Raises:
        ConfigError: Naming the setting.
    """
    if config.trainer.v1.trainer_mode != ASYNCHRONOUS:
        return
    rollout, key = config.actor_rollout_ref.rollout, f"trainer.v1.trainer_mode={ASYNCHRONOUS}"
    if rollout.get("full_determinism"):
        raise ConfigError(
            f"{key} and actor_rollout_ref.rollout.full_determinism=True: verl gives a rollout that "
            "goes on the seed that it began with, and its draws come a second time; set "
            "full_determinism=False, and rsp.seeded_sampling=True for seeds of rollouts"
        )
    ahead, batch = config.trainer.v1.colocate_async.num_warmup_batches, config.data.train_batch_size
    known = isinstance(ahead, int | float) and math.isfinite(ahead)
    if not known or int(ahead * batch) < 1:
        raise ConfigError(
            f"trainer.v1.colocate_async.num_warmup_batches={ahead} of {batch} prompts: without a "
            f"prompt beside the step's own {key} waits for every rollout; set it above 0, or "
            f"trainer_mode={SYNCHRONOUS}"
        )
    judge = config.reward.get("reward_model") or {}
    if judge.get("enable") and not judge.get("enable_resource_pool"):
        raise ConfigError(
            f"{key} and reward.reward_model.enable=True: a reward model on the rollouts' GPUs puts "
            "them to sleep while rollouts are under way; set enable_resource_pool=True, or a "
            "reward function"
        )
    if config.trainer.get("critic_warmup", 0) > 0:
        raise ConfigError(
            f"{key} and trainer.critic_warmup={config.trainer.critic_warmup}: steps that update no "
            "actor would count as updates between a token's policy and the actor's; set it to 0"
        )
    correction = config.algorithm.get("rollout_correction") or {}
    if (config.get("law") or {}).get("name") is not None:
        logger.warning(
            "%s trains on thoughts and tokens of older policies as if they were the actor's own: "
            "no correction is for thoughts; rsp/stale_tokens says how many they are",
            key,
        )
    elif not (correction.get("rollout_is") or correction.get("rollout_rs")):
        logger.warning(
            "%s trains on tokens of older policies as if they were the actor's own; "
            "+correction=tis weighs them, rsp/stale_tokens says how many they are",
            key,
        )
