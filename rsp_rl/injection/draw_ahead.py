"""Soft prompts drawn in the background, before the micro-batch that needs them.

A draw takes about a millisecond (L = 20, d = 3584), which a training step would otherwise spend in
front of each forward while the device waits. numpy draws without the GIL.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from rsp_rl.draws.record import SoftPromptRecord


class DrawAhead:
    """Draws a batch's soft prompts in a thread, in order, while its micro-batches are worked on.

    A context manager: at its end what nobody asked for is dropped. Holds O(rows x d) of memory on
    the CPU for the batch's rows.

    Args:
        records: The batch's.
        hidden_size: d.
    """

    def __init__(self, records: Iterable[SoftPromptRecord], hidden_size: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rsp-draw")
        self._hidden_size = hidden_size
        self._drawn: dict[SoftPromptRecord, Future[torch.Tensor]] = {
            record: self._pool.submit(record.draw, hidden_size)
            for record in records
            if record.length
        }

    def draw(self, record: SoftPromptRecord, hidden_size: int) -> torch.Tensor:
        """As `SoftPromptRecord.draw`: drawn already, or now if its turn has not come yet."""
        ahead = self._drawn.pop(record, None) if hidden_size == self._hidden_size else None
        # A draw that has not begun can be cancelled; it would stand behind all the others.
        if ahead is None or ahead.cancel():
            return record.draw(hidden_size)
        return ahead.result()

    def __enter__(self) -> DrawAhead:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._drawn.clear()
