"""Settings of another type than their default, found before verl takes them at their word.

Hydra takes any value. `data.shuffle=no` is a text and so true; `optim.lr=1e-6x` and
`trainer.save_freq=often` end in a traceback minutes later, or after the first step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.configs import compose_config

#: Checked elsewhere, or what takes numbers and texts alike.
_ELSEWHERE = ("rsp", "law", "algorithm.rollout_correction")

#: Numbers by default that may be left out.
_NULLABLE = (
    "data.max_prompt_length",
    "trainer.total_training_steps",
    "trainer.v1.rsp_sync.phase_timeout_s",
)

#: Settings that other reward managers do without.
_OPTIONAL = ("reward.reward_kwargs.overlong_buffer_cfg", "reward.reward_kwargs.max_resp_len")

_MISSING = object()


def check_types(config: DictConfig) -> None:
    """Compare each setting's type with its default's; settings without a default may be anything.

    A default of 0 may be a fraction's; a seed may be null, and so may a switch: it is then off.

    Raises:
        ConfigError: Naming the setting, its value and what it must be; for a reference to a setting
            that is not there, too.
    """
    try:
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the config cannot be read: {' '.join(str(error).split())}") from error
    for name, default in _defaults():
        if any(name == part or name.startswith(f"{part}.") for part in _ELSEWHERE):
            continue
        if any(f"{name}.".startswith(f"{part}.") and _is_null(values, part) for part in _OPTIONAL):
            continue
        value = _at(values, name.split("."))
        wanted = _wanted(name, default, value)
        if wanted and not _refers(config, name):
            said = " is removed, but" if value is _MISSING else f"={value!r}"
            raise ConfigError(f"{name}{said} must be {wanted}")


@cache
def default_names() -> dict[str, frozenset[str]]:
    """Names of the settings and groups in each group, by its own; the topmost's is empty."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name, _ in _defaults():
        parent, _, last = name.rpartition(".")
        groups[parent].add(last)
    return {parent: frozenset(names) for parent, names in groups.items()}


@cache
def _defaults() -> list[tuple[str, Any]]:
    composed = OmegaConf.to_container(compose_config("dapo_rsp"), resolve=True)
    return [*_flat(composed, "")]


def _flat(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Settings and groups of settings, groups before what is in them."""
    for key, value in node.items():
        name = f"{path}.{key}" if path else str(key)
        yield name, value
        if isinstance(value, dict):
            yield from _flat(value, name)


def _at(node: Any, keys: list[str]) -> Any:
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            return _MISSING
        node = node[key]
    return node


def _refers(config: DictConfig, name: str) -> bool:
    """Whether a setting is another's value; that one is looked at itself."""
    parent, _, last = name.rpartition(".")
    group = OmegaConf.select(config, parent) if parent else config
    return (
        isinstance(group, DictConfig) and last in group and OmegaConf.is_interpolation(group, last)
    )


def _is_null(values: dict[str, Any], name: str) -> bool:
    return _at(values, name.split(".")) is None


def _wanted(name: str, default: Any, value: Any) -> str | None:
    """What a setting must be that is something else; None for one that is as it may be."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, dict):
        left_out = not default and value is _MISSING  # an empty group is the user's to fill
        return None if isinstance(value, dict) or left_out else "a group of settings"
    if isinstance(default, list):
        is_list = isinstance(value, list) or name == "trainer.logger"  # which may be one name
        return None if is_list else "a list"
    if isinstance(default, bool):
        is_switch = value is None or value is _MISSING or value in (0, 1)
        return None if is_switch and not isinstance(value, float) else "True or False"
    if not isinstance(default, int | float):
        return None
    if value is None and (name in _NULLABLE or name.endswith("seed")):
        return None
    is_whole = isinstance(default, int) and default != 0 and "timeout" not in name
    if is_number and math.isfinite(value) and (isinstance(value, int) or not is_whole):
        return None
    return "a whole number" if is_whole else "a number"
