"""The methods by name, and their settings from a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.presets import AUTHORS, departures, get_preset, spoken
from rsp_rl.comparators.softcot import SoftCot
from rsp_rl.comparators.trained_file import load_trained, settings_of
from rsp_rl.comparators.ttsv import Ttsv
from rsp_rl.inference.soft_prompts import Comparator

METHODS: dict[str, type[Comparator]] = {kind.method: kind for kind in (Ltpo, Ttsv, SoftCot)}

_KINDS = {"float": (int, float), "int": int, "str": str, "str | None": str}


def comparator_from_config(config: Mapping[str, Any]) -> Comparator:
    """A method with its settings, from `{"method": name, setting: value, ...}`.

    A `preset` of `rsp_rl.comparators.presets` gives the settings that are not there.

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
        trained = f"; --preset of `rsp-rl train-comparator {kind.method}` is where it is chosen"
        raise ConfigError(
            f"unknown key comparator.{unknown[0]} of {kind.method}; known: {', '.join(known)}"
            f"{trained if unknown[0] == 'preset' else ''}"
        )
    if "preset" in known:
        given = asdict(get_preset(kind.method, given.get("preset", AUTHORS)).settings) | given
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


def evaluation_length(comparator: Comparator) -> int:
    """L in evaluations, unless it is set: the preset's, or the method's own."""
    if isinstance(comparator, Ltpo):
        return get_preset(comparator.method, comparator.preset).length
    return comparator.length


def preset_line(comparator: Comparator, length: int) -> str:
    """Which preset a comparator has, or was trained with, and what of it was set otherwise.

    Args:
        comparator: The comparator; of a trained one its folder is read.
        length: L of the evaluation.

    Raises:
        RunFolderError: If that folder cannot be read.
        ConfigError: If it names a preset that there is not.
    """
    if isinstance(comparator, Ltpo):
        name, settings = comparator.preset, asdict(comparator)
    else:
        how = load_trained(Path(comparator.trained), comparator.method, ()).how
        # Before there were presets, what was not set was the authors'.
        name, settings = how.get("preset", AUTHORS), settings_of(how)
    preset = get_preset(comparator.method, name)
    departed = departures(preset, settings)
    if length != preset.length:
        departed["rsp.length"] = (length, preset.length)
    return spoken(name, departed)
