"""Settings that were added under a name that nothing reads, beside one that looks like it.

Hydra refuses `trainer.save_frq=10` and advises `+trainer.save_frq=10`, which then does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from difflib import get_close_matches

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.setting_types import default_names

logger = logging.getLogger(__name__)

#: How alike, of 1, two names are that are taken for one.
_ALIKE = 0.85


def check_added(overrides: Sequence[str]) -> None:
    """Look for a setting's own name near each that is added.

    Args:
        overrides: Hydra's, as given.

    Raises:
        ConfigError: Naming both; `++`, which adds whatever it is called, leaves a warning.
    """
    for override in overrides:
        given = override.partition("=")[0]
        name = given.lstrip("+")
        if not given.startswith("+") or not (meant := _meant(name)):
            continue
        if given.startswith("++"):
            logger.warning("%s is no setting; is it %s that is meant?", name, meant)
            continue
        raise ConfigError(
            f"{given} is no setting, and nothing would read it; set {meant}, or ++{name} if it is "
            "meant so"
        )


def _meant(name: str) -> str | None:
    """The setting that another name stands for; None for a setting, and for what is like none."""
    names = default_names()
    parent = ""
    for part in name.split("."):
        beside = names.get(parent, frozenset())
        if part not in beside:
            alike = get_close_matches(part, beside, n=1, cutoff=_ALIKE)
            return f"{parent}.{alike[0]}".removeprefix(".") if alike else None
        parent = f"{parent}.{part}".removeprefix(".")
    return None
