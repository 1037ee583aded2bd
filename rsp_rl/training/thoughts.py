"""A run's law, for whoever does not know yet whether it has one: laws are torch, which takes time.

Without a law nothing here loads anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import write_json
from rsp_rl.models.shape import ModelShape
from rsp_rl.runs.folder import RunFolder
from rsp_rl.training.estimate import GIB

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What a run that goes on may have otherwise.
_CHANGEABLE = frozenset({"validation", "guard"})


def check_law(config: DictConfig) -> None:
    """Refuse a law that is none, and what it cannot work with.

    Raises:
        ConfigError: Naming the setting.
    """
    if _is_off(config):
        return
    from rsp_rl.training.thought_options import ThoughtOptions
    from rsp_rl.training.thought_support import check_law_support

    check_law_support(config, ThoughtOptions.from_config(config.law))


def fit_law(
    config: DictConfig,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: int | None,
) -> bool:
    """Put into the config what model and law decide, in place.

    Args:
        config: The run's, checked.
        folder: The model's.
        tokenizer: The model's.
        vocabulary: V, if known.

    Returns:
        Whether there is a law.

    Raises:
        ConfigError: If it does not fit the model.
    """
    if _is_off(config):
        return False
    from rsp_rl.training.thought_options import ThoughtOptions
    from rsp_rl.training.thought_support import fill_in_law

    fill_in_law(config, ThoughtOptions.from_config(config.law), folder, tokenizer, vocabulary)
    return True


def loops_without_law() -> frozenset[str]:
    """verl's agent loops that rows of a run with a law cannot ask for."""
    from rsp_rl.training.thought_support import MULTI_TURN

    return MULTI_TURN


def keep_law(config: DictConfig, run: RunFolder, *, resumes: bool) -> None:
    """Leave a run's law in its folder; a run that goes on must have the one that it began with.

    Args:
        config: The run's, filled in.
        run: Its folder.
        resumes: Whether there is a checkpoint to go on from.

    Raises:
        ConfigError: Naming the first setting that differs.
    """
    law = None if _is_off(config) else OmegaConf.to_container(config.law, resolve=True)
    saved = run.read_law()
    if resumes and saved is not None:
        for key in sorted({*saved, *(law or {})} - _CHANGEABLE):
            if (now := (law or {}).get(key)) != saved.get(key):
                raise ConfigError(
                    f"law.{key}={now}, and {run.root} was trained with {saved.get(key)}; resume "
                    "with that, or start anew with another run_dir"
                )
    if law is not None:
        write_json(run.law, law)
    elif not resumes:
        run.law.unlink(missing_ok=True)


def law_lines(config: DictConfig, shape: ModelShape) -> Iterator[str]:
    """What a dry run says of a law; nothing without one.

    Args:
        config: The run's, checked.
        shape: The model's.
    """
    if _is_off(config):
        return
    from rsp_rl.training.thought_options import ThoughtOptions

    law = ThoughtOptions.from_config(config.law).law
    rollout = config.actor_rollout_ref.rollout
    width = 4 if str(rollout.dtype) in ("float32", "float") else 2
    position = 1 + 8 * law.slots + (width * shape.hidden_size if law.dense else 0)
    rollouts = config.data.train_batch_size * rollout.n
    most = position * config.data.max_response_length
    yield "\n# thoughts"
    yield f"law: {law}"
    yield f"bytes: {position:,} a position, {most / 2**20:.2f} MiB a response at most"
    yield f"records of a step's {rollouts} rollouts: {rollouts * most / GIB:.2f} GiB at most"


def _is_off(config: DictConfig) -> bool:
    group = config.get("law")  # a config of before has none
    return group is None or (isinstance(group, DictConfig) and group.get("name") is None)
