"""What is left of the rows for verl, which divides by it some minutes after the start."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError

logger = logging.getLogger(__name__)


def check_left(data: DictConfig, name: str, rows: int, dropped: Collection[int], why: str) -> None:
    """Refuse what verl could not go on with, and say what no batch takes.

    Args:
        data: The config's `data`.
        name: `train` or `val`.
        rows: Rows in its files.
        dropped: Numbers of those, over all files, that verl leaves out.
        why: In words, for what reasons.

    Raises:
        ConfigError: If no row is left, or fewer than a batch.
    """
    setting = f"data.{name}_files"
    drawn, kept = kept_rows(data, name, rows, dropped)
    if drawn < rows:
        logger.info("%s: data.%s_max_samples=%d of %d rows", setting, name, drawn, rows)
    of = f" ({rows} in the files"
    of += f", {drawn} drawn by data.{name}_max_samples" * (drawn < rows)
    of += f"; {why}" * bool(why) + ")"
    if kept == 0:
        raise ConfigError(
            f"{setting}: no row is left{of}; raise data.max_prompt_length, or name other files"
        )
    if name == "val":
        return
    for size in ("train_batch_size", "gen_batch_size"):
        wanted = data.get(size) or 0
        if kept < wanted:
            raise ConfigError(
                f"{setting}: {kept} rows are left{of}, fewer than data.{size}={wanted}, and no "
                "step would have its batch; lower it (with actor_rollout_ref.actor."
                "ppo_mini_batch_size), or add rows"
            )
    rest = kept % data.train_batch_size
    if rest:
        logger.info(
            "%s: %d rows, %d batches an epoch; %s %d rows are left over in each",
            setting,
            kept,
            kept // data.train_batch_size,
            "other" if data.shuffle else "the last",
            rest,
        )


def kept_rows(data: DictConfig, name: str, rows: int, dropped: Collection[int]) -> tuple[int, int]:
    """Rows that verl draws, and those of them that it keeps.

    `RLHFDataset` draws `max_samples` rows before it leaves any out. Which, it alone knows where
    there is no `data.seed`; then the most that it may keep.

    Args:
        data: See `check_left`.
        name: See `check_left`.
        rows: See `check_left`.
        dropped: See `check_left`.
    """
    most = data.get(f"{name}_max_samples", -1)
    if not 0 < most < rows:
        return rows, rows - len(dropped)
    if data.shuffle and data.seed is None:
        return most, min(most, rows - len(dropped))
    drawn = np.arange(most)
    if data.shuffle:
        drawn = np.random.default_rng(data.seed).choice(rows, size=most, replace=False)
    return most, most - len(set(drawn.tolist()) & set(dropped))
