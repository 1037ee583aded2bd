"""The trainer's modes, and what a run whose rollouts outlive an update cannot be."""

from __future__ import annotations

import logging

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
    ahead = config.trainer.v1.colocate_async.num_warmup_batches
    if not isinstance(ahead, int | float) or not ahead > 0:
        raise ConfigError(
            f"trainer.v1.colocate_async.num_warmup_batches={ahead}: without a batch beside the "
            f"step's own {key} waits for every rollout; set it above 0, or trainer_mode="
            f"{SYNCHRONOUS}"
        )
    correction = config.algorithm.get("rollout_correction") or {}
    if not (correction.get("rollout_is") or correction.get("rollout_rs")):
        logger.warning(
            "%s trains on tokens of older policies as if they were the actor's own; "
            "+correction=tis weighs them, rsp/stale_tokens says how many they are",
            key,
        )
