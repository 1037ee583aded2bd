"""The methods by name, and their settings from a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.softcot import SoftCot
from rsp_rl.comparators.ttsv import Ttsv
from rsp_rl.inference.soft_prompts import Comparator

METHODS: dict[str, type[Comparator]] = {kind.method: kind for kind in (Ltpo, Ttsv, SoftCot)}

_KINDS = {"float": (int, float), "int": int, "str": str, "str | None": str}


def comparator_from_config(config: Mapping[str, Any]) -> Comparator:
    """A method with its settings, from `{"method": name, setting: value, ...}`.

    Raises:
        ConfigError: On an unknown method or setting, a missing one, or a bad value.
    """
    if not isinstance(config, Mapping) or config.get("method") not in METHODS:
        raise ConfigError(
            f"comparator={config!r} must be a group with a method, one of {', '.join(METHODS)}"
        )
    given = {name: value for name, value in config.items() if value is not None}
    kind = METHODS[given.pop("method")]
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(
            f"unknown key comparator.{unknown[0]} of {kind.method}; known: {', '.join(known)}"
        )
    for name, field in known.items():
        if name not in given:
            if field.default is MISSING:
                raise ConfigError(f"comparator.{name} is missing, which {kind.method} needs")
            continue
        value = given[name]
        if isinstance(value, bool) or not isinstance(value, _KINDS[field.type]):
            raise ConfigError(f"comparator.{name}={value!r} must be of type {field.type}")
        if field.type == "float":
            given[name] = float(value)  # 4 and 4.0 are the same setting
    return kind(**given)


def comparator_to_config(comparator: Comparator) -> dict[str, Any]:
    """Plain types, which `comparator_from_config` reads back."""
    return {"method": comparator.method, **asdict(comparator)}
