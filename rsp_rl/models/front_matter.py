"""The YAML at the head of a model's README, which the Hugging Face hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_FENCE = "---"


def read_front_matter(card: Path) -> dict[str, Any] | None:
    """What stands between a README's first two lines of `---`.

    Args:
        card: The README.

    Returns:
        None if there is no such file or no such head.

    Raises:
        ValueError: If it is no YAML, or no mapping.
    """
    if not card.is_file():
        return None
    # Not splitlines(): a value may hold Unicode's line breaks.
    lines = card.read_text(encoding="utf-8", errors="replace").lstrip("\ufeff").split("\n")
    if lines[0].rstrip() != _FENCE:
        return None
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE), None)
    if end is None:
        return None
    try:
        found = yaml.safe_load("\n".join(lines[1:end]))
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(found, dict):
        raise ValueError("no mapping")
    return found


def front_matter(content: dict[str, Any]) -> str:
    """A README's head, its keys in the given order."""
    text = yaml.safe_dump(content, sort_keys=False, width=10_000)  # in ASCII
    return f"{_FENCE}\n{text}{_FENCE}\n"
