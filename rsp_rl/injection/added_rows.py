"""Rows that are added to the embeddings of running requests' prompts, in vLLM's model runner.

vLLM embeds the tokens of each step with its weights as they are then, and rows are added to what
it made of them: also where a prompt comes in pieces, or again after a preemption. Nothing of a
table is kept from one step to the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from rsp_rl.injection.hook import rounded_sum


class Scheduled(NamedTuple):
    """Positions of a request that a step computes.

    Attributes:
        request: Its name.
        first: The first of them in the request's sequence.
        end: The one behind the last.
        offset: From a position in the sequence to its row in the step's inputs.
    """

    request: str
    first: int
    end: int
    offset: int


class AddedRows:
    """By request, on the CPU: they are wanted once, with the prompt, and after a preemption."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[int, torch.Tensor]] = {}
        self._arrived: dict[str, tuple[int, torch.Tensor]] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def arrive(self, request: str, start: int, rows_LD: torch.Tensor) -> None:
        """Take on a request of the coming step.

        Args:
            request: Its name.
            start: Position of the first row.
            rows_LD: [L, d], in the rollout's dtype.
        """
        self._arrived[request] = start, rows_LD

    def update(self, finished: Iterable[str]) -> None:
        """Begin a step: finished requests are forgotten, then those that arrived are there.

        In this order: a name may come again.
        """
        for request in finished:
            self._rows.pop(request, None)
        self._rows |= self._arrived
        self._arrived = {}

    def add(self, inputs_TD: torch.Tensor, scheduled: Iterable[Scheduled]) -> None:
        """Add the rows of a step's positions, in place.

        Args:
            inputs_TD: The step's inputs, tokens embedded, [T, d].
            scheduled: What is in the step.
        """
        for request, first, end, offset in scheduled:
            if request not in self._rows:
                continue
            start, rows_LD = self._rows[request]
            begin, stop = max(first, start), min(end, start + len(rows_LD))
            if begin < stop:
                own_LD = rows_LD[begin - start : stop - start].to(inputs_TD.device)
                inputs_LD = inputs_TD[offset + begin : offset + stop]
                inputs_LD.copy_(rounded_sum(inputs_LD, own_LD, rows_LD.dtype))
