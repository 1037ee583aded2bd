"""Thoughts for readers: the positions that are no ordinary tokens, as lists of plain types."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind


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
    made: dict[str, Any] = {"at": [], "kind": [], "ids": [], "weights": [], "texts": {}}
    ordinary = {kind.name.lower() for kind in (Kind.TOKEN, Kind.END)}
    for at, row in enumerate(record.summary()):
        if row["kind"] in ordinary:
            continue
        made["at"].append(at)
        made["kind"].append(row["kind"])
        made["ids"].append(row["ids"])
        made["weights"].append(row.get("weights", []))
    for token in dict.fromkeys(chain.from_iterable(made["ids"])):
        made["texts"][str(token)] = text(token)
    return made
