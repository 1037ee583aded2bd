"""Absolute paths: a run's workers start in other folders than the one that it is started in.

A relative path that is right here is nothing there, and of a model's verl then asks the hub. Paths
that lead nowhere here are left as they are: who reads them says so.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

#: Settings that name a file or a folder, or several.
READ = (
    *("data.train_files", "data.val_files", "data.custom_cls.path"),
    *("actor_rollout_ref.model.path", "actor_rollout_ref.model.tokenizer_path"),
    *("actor_rollout_ref.model.hf_config_path", "actor_rollout_ref.model.lora_adapter_path"),
    "actor_rollout_ref.rollout.agent.agent_loop_config_path",
    "actor_rollout_ref.rollout.multi_turn.tool_config_path",
    "actor_rollout_ref.rollout.multi_turn.function_tool_path",
    "actor_rollout_ref.rollout.multi_turn.interaction_config_path",
    *("reward.custom_reward_function.path", "trainer.v1.sampler.custom_sampler.path"),
    *("trainer.resume_from_path", "rsp.table"),
)

#: Settings that name what the run will make.
WRITTEN = (
    *("run_dir", "trainer.default_local_dir", "trainer.rollout_data_dir"),
    "trainer.validation_data_dir",
)


def make_absolute(config: DictConfig) -> None:
    """Make the config's local paths absolute, `~` included, in place."""
    for name in (*READ, *WRITTEN):
        value = OmegaConf.select(config, name, throw_on_missing=False)
        if value is None or value == "":
            continue
        if isinstance(value, str):
            OmegaConf.update(config, name, _absolute(value, made=name in WRITTEN))
        elif isinstance(value, Sequence):
            OmegaConf.update(config, name, [_absolute(str(each), made=False) for each in value])


def _absolute(path: str, *, made: bool) -> str:
    if "://" in path:
        return path
    absolute = os.path.abspath(os.path.expanduser(path))
    return absolute if made or os.path.exists(absolute) else path
