"""Thoughts for readers: the positions that are no ordinary tokens, as lists of plain types."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind

#: What ordinary tokens are called.
_ORDINARY = {kind.name.lower() for kind in (Kind.TOKEN, Kind.END)}


def position_columns(record: ThoughtRecord) -> dict[str, list[Any]]:
    """As `thought_columns`, without texts."""
    rows = [(at, row) for at, row in enumerate(record.summary()) if row["kind"] not in _ORDINARY]
    return {
        "at": [at for at, _ in rows],
        "kind": [row["kind"] for _, row in rows],
        "ids": [row["ids"] for _, row in rows],
        "weights": [row.get("weights", []) for _, row in rows],
    }


def thought_columns(record: ThoughtRecord, text: Callable[[int], str]) -> dict[str, Any]:
    """What a record says of its thoughts.

    Args:
        record: Of one output.
        text: Of a token.

    Returns:
        Lists with an entry a position: `at`, its number among the generated tokens; `kind`, a
        `Kind` in small letters; `ids`, the emitted one first; `weights` to four digits, none where
        the input is no mixture of few; and `texts` of all ids.
    """
    made: dict[str, Any] = position_columns(record) | {"texts": {}}
    for token in dict.fromkeys(chain.from_iterable(made["ids"])):
        made["texts"][str(token)] = text(token)
    return made
