"""A training step's thoughts for readers: a row a rollout of `N.thoughts.jsonl`.

What an actor replays are the records themselves, which no file keeps: this is ids, and weights to
four digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from rsp_rl.thoughts.columns import position_columns
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind

#: Positions that a step's file has in full, whole rollouts: 10 MB with mixtures of five tokens.
MOST_POSITIONS = 100_000

#: Rollouts whose records are in memory at once.
_TOGETHER = 64


def thought_rows(
    rollouts: Sequence[dict[str, Any]],
    kinds: Sequence[torch.Tensor],
    records: Callable[[Sequence[str]], Iterable[torch.Tensor]],
    most: int = MOST_POSITIONS,
) -> list[dict[str, Any]]:
    """Rows in the order of the rollouts.

    Args:
        rollouts: Which they are, `uid` and more.
        kinds: `Kind`s of each one's positions, [T].
        records: Encoded `ThoughtRecord`s of rollouts, by their `uid`s.
        most: Positions in full.

    Returns:
        What is in `rollouts`, and `thoughts`, how many positions are no ordinary tokens; of the
        first rollouts, as many as `most` allows, with these positions: `law`, `seed` of the noise,
        `start`, and `at`, `kind`, `ids`, `weights` as in an evaluation's samples.
    """
    tokens = torch.tensor([Kind.TOKEN, Kind.END])
    rows, left = [], most
    for rollout, kind_T in zip(rollouts, kinds, strict=True):
        rows.append(rollout | {"thoughts": int((~torch.isin(kind_T.long(), tokens)).sum())})
    chosen = []
    for row in rows:
        left -= row["thoughts"]
        if left < 0:
            break
        chosen.append(row)
    for first in range(0, len(chosen), _TOGETHER):
        part = chosen[first : first + _TOGETHER]
        for row, encoded in zip(part, records([row["uid"] for row in part]), strict=True):
            record = ThoughtRecord.from_tensor(encoded)
            row |= {"law": record.law.name, "seed": record.seed, "start": record.start}
            row |= position_columns(record)
    return rows
