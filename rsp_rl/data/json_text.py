"""JSON as data files hold it: a whole one, a line of it, or a cell of a table."""

from __future__ import annotations

import json
from typing import Any


def read_json_text(text: str | bytes) -> Any:
    """What a JSON text stands for.

    Raises:
        ValueError: If it is damaged, nested too deeply to be read, or an object in it names a field
            twice, of which Python would take the last in silence.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(f"it is nested too deeply: {error}") from error


def read_cell(value: Any) -> Any:
    """What a csv file's cell stands for: a list or mapping is JSON in it; other values as given."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return read_json_text(value)
    except ValueError:
        return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(f"an object names a field twice: {[name for name, _ in pairs]}")
    return fields
