"""The hook that puts thoughts into a torch model: rows made of the model's own embedding table.

Within the embedding's forward its table is whole, also where FSDP2 has it in parts, and what is
made of it has its gradient: so mixtures are made here, and here the table is kept for laws that
score with it.

Shape suffixes: `_N` thoughts of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from rsp_rl.injection.hook import overwrite_rows
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.samples import SampleThoughts


@dataclass(frozen=True)
class _Current:
    thoughts: SampleThoughts
    positions_N: torch.Tensor
    detached: bool
    forgotten: bool


class ThoughtInjector:
    """Overwrites rows of an embedding module's output by thoughts while `inject` is active.

    Autograd sees rows that are made of the table, or of constants: of a thought's token no gradient
    reaches the table.
    """

    def __init__(self, embedding: nn.Module) -> None:
        self._module = embedding
        self._current: _Current | None = None
        self._kept: torch.Tensor | None = None
        # The module's forward without its hooks: this one, and those that gather its weight.
        self._embedding = TableEmbedding(embedding.forward, lambda: embedding.weight)
        self._handle = embedding.register_forward_hook(self._hook)

    @property
    def embedding(self) -> TableEmbedding:
        """The model's as it was in the last forward within `inject`, for mixtures of all tokens.

        It is good as long as the forward's graph is. Rows it has of the forward alone.
        """
        kept = self._kept
        if kept is None:
            return self._embedding
        return TableEmbedding(self._module.forward, lambda: kept, self._embedding.factor)

    def remove(self) -> None:
        """Take the hook off the module."""
        self._handle.remove()

    @contextmanager
    def inject(
        self,
        thoughts: SampleThoughts,
        positions_N: torch.Tensor,
        *,
        detached: bool,
        forgotten: bool = False,
    ) -> Iterator[None]:
        """Overwrite rows in every forward of the embedding inside this context.

        Args:
            thoughts: N of them.
            positions_N: int64 [N] on the CPU, indices into the embedding's output with batch and
                sequence flattened.
            detached: Whether no gradient flows from the inputs into the table.
            forgotten: Whether their tokens stay where they are, to see what that would make.

        Raises:
            IndexError: In the forward, if a position lies behind its batch.
        """
        self._current = _Current(thoughts, positions_N, detached, forgotten)
        try:
            yield
        finally:
            # A failed micro-batch must not leave its thoughts, or its table, to the next one.
            self._current = self._kept = None

    def _hook(self, module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor | None:
        current = self._current
        if current is None:
            return None
        thoughts = current.thoughts
        if thoughts.law.mixes_all:
            self._embedding.factor  # noqa: B018  (measured while the look-up works)
            self._kept = module.weight.clone()  # a copy: the table goes back to its parts
        if current.forgotten:
            return None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not current.detached):
            made_ND = thoughts.law.embed(thoughts.rows.to(output.device), self._embedding)
        return overwrite_rows(output, current.positions_N, made_ND)
