"""Whether a checkpoint fits on its disk: the first one is saved hours after the start."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from omegaconf import DictConfig

from rsp_rl.training.fitted_sizes import weight_sizes

logger = logging.getLogger(__name__)

#: Of fp32 weights, and of Adam's two moments beside them.
_WEIGHTS, _MOMENTS = 4, 8
_GIB = 1 << 30


def tell_room(config: DictConfig, model: Path) -> None:
    """Say that the disk of the checkpoints does not hold one, if so.

    A warning: what is saved as bfloat16 takes less, and others may make room.

    Args:
        config: The composed config; the folder of its checkpoints exists.
        model: The model's folder.
    """
    trainer = config.trainer
    if trainer.save_freq <= 0:
        return
    adapter = config.actor_rollout_ref.model.get("lora_rank", 0) > 0  # the base has no moments
    numbers = sum(count for _, count in weight_sizes(model))
    needed = numbers * (_WEIGHTS if adapter else _WEIGHTS + _MOMENTS)
    free = shutil.disk_usage(trainer.default_local_dir).free
    if free < needed:
        logger.warning(
            "a checkpoint takes about %.1f GiB, and %s has %.1f GiB free: the run would end at its "
            "first one; make room, or name another trainer.default_local_dir",
            *(needed / _GIB, trainer.default_local_dir, free / _GIB),
        )
