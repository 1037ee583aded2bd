"""A sample's thoughts as a viewer shows them: both ends, a few tokens each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

THOUGHTS_HEAD = 120
"""Thoughts kept of the beginning of many."""
THOUGHTS_TAIL = 40
"""Thoughts kept of their end."""
TOKENS = 5
"""Tokens shown of a thought."""


class ShownThoughts(TypedDict):
    """Thoughts of a sample as the viewer shows them; the lists run over what is shown."""

    law: str
    positions: int
    """Positions that are no ordinary tokens."""
    left_out: int
    """Of these between the first and the last ones."""
    at: list[int]
    kind: list[str]
    tokens: list[list[tuple[str, float | None]]]
    """Text and weight of a position's likeliest tokens, the emitted one first."""


def shown_thoughts(
    law: str, columns: Mapping[str, Any], text: Callable[[int], str]
) -> ShownThoughts:
    """What is shown of a sample's thoughts.

    Args:
        law: Its name.
        columns: Lists with an entry a position, of `rsp_rl.thoughts.columns.position_columns`.
        text: Of a token.
    """
    count = len(columns["at"])
    left_out = max(0, count - THOUGHTS_HEAD - THOUGHTS_TAIL)
    shown = list(range(count))
    if left_out:
        shown = shown[:THOUGHTS_HEAD] + shown[-THOUGHTS_TAIL:]
    return {
        "law": law,
        "positions": count,
        "left_out": left_out,
        "at": [columns["at"][place] for place in shown],
        "kind": [columns["kind"][place] for place in shown],
        "tokens": [
            _top_tokens(columns["ids"][place], columns["weights"][place], text) for place in shown
        ],
    }


def _top_tokens(
    ids: Sequence[int], weights: Sequence[float], text: Callable[[int], str]
) -> list[tuple[str, float | None]]:
    pairs = list(zip(ids, weights or [None] * len(ids), strict=True))
    # The emitted one first, whatever it weighs.
    others = sorted(pairs[1:], key=lambda pair: -(pair[1] or 0))
    return [(text(token), weight) for token, weight in [*pairs[:1], *others][:TOKENS]]
