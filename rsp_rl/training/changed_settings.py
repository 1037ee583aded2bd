"""Settings that a resumed run has otherwise than the start whose numbers it goes on with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from rsp_rl.runs.checkpoints import finished_checkpoints

logger = logging.getLogger(__name__)

#: How many are named.
_NAMED = 12

#: Ray's; among its variables are keys.
_UNNAMED = "ray_kwargs."


def tell_changed(config: str, folder: Path, checkpoints: Path) -> None:
    """Say in a line what changed since the last start of a run that has checkpoints.

    Args:
        config: The config as it was composed, as YAML.
        folder: The run's, with the last start's in `config/config.yaml`.
        checkpoints: Its folder of checkpoints.
    """
    kept = folder / "config" / "config.yaml"
    if not kept.is_file() or not finished_checkpoints(checkpoints):
        return
    try:
        before = dict(_flat(yaml.safe_load(kept.read_text()), ""))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        logger.warning("%s cannot be read, so what changed since is not said: %s", kept, why)
        return
    now = dict(_flat(yaml.safe_load(config), ""))
    changed = [
        f"{name}={now.get(name)} ({before.get(name)})"
        for name in dict.fromkeys((*now, *before))
        if now.get(name) != before.get(name) and not name.startswith(_UNNAMED)
    ]
    if changed:
        more = f" and {len(changed) - _NAMED} more" * (len(changed) > _NAMED)
        logger.warning(
            "this start of the run has other settings than the last (in brackets): %s%s",
            ", ".join(changed[:_NAMED]),
            more,
        )


def _flat(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from _flat(value, f"{path}.{name}".removeprefix("."))
    else:
        yield path, node
