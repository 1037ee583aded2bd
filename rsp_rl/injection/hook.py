"""The hook that puts soft prompts into a torch model: chosen rows of the input embedding's output.

Works for any model, wrapped or not (FSDP1, FSDP2, LoRA, gradient checkpointing): it needs the
embedding module only, and leaves the model's inputs as they are.

Rows of a law that adds them (`Law.added`) are added to what the embedding gave for the tokens
there, in the rollout's dtype: the input is what vLLM, whose table is rounded to it, makes of token
and row. Gradient flows to the table through the token's embedding as it does without the row.

Shape suffixes: `_K` soft prompt rows of a micro-batch, `_KD` the same with the hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from rsp_rl.draws.record import DTYPES, SoftPromptRecord

#: Of `sums_of`, at rows that replace an embedding.
_REPLACES = -1


class SoftPromptInjector:
    """Overwrites rows of an embedding module's output, or adds to them, while `inject` is active.

    Where they are overwritten, autograd sees rows that come from H, a constant, so that no gradient
    reaches the embedding table through them, and none flows into H. The rows are written in place,
    which takes memory for them alone: an embedding does not need its output again.
    """

    def __init__(self, embedding: nn.Module) -> None:
        self._rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None
        self._handle = embedding.register_forward_hook(self._hook)

    def remove(self) -> None:
        """Take the hook off the module."""
        self._handle.remove()

    @contextmanager
    def inject(
        self,
        positions_K: torch.Tensor,
        rows_KD: torch.Tensor,
        sums_K: torch.Tensor | None = None,
    ) -> Iterator[None]:
        """Overwrite rows, or add to them, in every forward of the embedding inside this context.

        Args:
            positions_K: int64 [K] on the CPU, indices into the embedding's output with batch and
                sequence flattened.
            rows_KD: [K, d], cast to the output's dtype and device.
            sums_K: See `sums_of`; None where all rows replace.

        Raises:
            ValueError: If there are not as many rows as positions.
            IndexError: In the forward, if a position lies behind its batch.
        """
        if positions_K.shape[0] != rows_KD.shape[0]:
            raise ValueError(f"{positions_K.shape[0]} positions for {rows_KD.shape[0]} rows")
        self._rows = (positions_K, rows_KD, sums_K)
        try:
            yield
        finally:
            # A failed micro-batch must not leave its rows to the next one.
            self._rows = None

    def _hook(self, module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor | None:
        if self._rows is None or not self._rows[0].numel():
            return None
        positions_K, rows_KD, sums_K = self._rows
        if sums_K is not None:
            rows_KD = _with_sums(output, positions_K, rows_KD, sums_K)
        return overwrite_rows(output, positions_K, rows_KD)


def overwrite_rows(
    output: torch.Tensor, positions_K: torch.Tensor, rows_KD: torch.Tensor
) -> torch.Tensor:
    """An embedding's output with some of its rows replaced, in place where that is allowed.

    Args:
        output: [..., d].
        positions_K: int64 [K] on the CPU, indices into it with all but the last dimension flat.
        rows_KD: [K, d], cast to the output's dtype and device.

    Raises:
        IndexError: If a position lies behind the batch.
    """
    # Not a view of a flattened copy: FSDP2 hangs its backward hooks on this very tensor.
    places = _places(output, positions_K)
    rows_KD = _queued(rows_KD, output.device).to(output.dtype)
    if output.is_leaf and output.requires_grad:  # peft's `enable_input_require_grads`
        return output.index_put(places, rows_KD)
    return output.index_put_(places, rows_KD)


def rounded_sum(
    embeddings_KD: torch.Tensor, rows_KD: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Embeddings with rows added to them, the sum that a model of this dtype gets.

    Args:
        embeddings_KD: [K, d], of the actor's dtype maybe, which may be wider.
        rows_KD: [K, d], on the same device.
        dtype: The rollout's.

    Returns:
        [K, d], of the embeddings' dtype.
    """
    return (embeddings_KD.to(dtype) + rows_KD.to(dtype)).to(embeddings_KD.dtype)


class _RoundedSum(torch.autograd.Function):
    """`rounded_sum`, whose gradient is the embeddings' and is not rounded."""

    @staticmethod
    def forward(
        ctx: object, embeddings_KD: torch.Tensor, rows_KD: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        return rounded_sum(embeddings_KD, rows_KD, dtype)

    @staticmethod
    def backward(ctx: object, gradient_KD: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient_KD, None, None


def _with_sums(
    output: torch.Tensor, positions_K: torch.Tensor, rows_KD: torch.Tensor, sums_K: torch.Tensor
) -> torch.Tensor:
    """The rows, those that are added with the embeddings at their positions: [K, d]."""
    made_KD = _queued(rows_KD, output.device).to(output.dtype)
    for code in sums_K.unique().tolist():
        if code == _REPLACES:
            continue
        at_K = torch.nonzero(sums_K == code)[:, 0]
        own_KD = _queued(rows_KD[at_K], output.device)
        embeddings_KD = output[_places(output, positions_K[at_K])]
        sums_KD = _RoundedSum.apply(embeddings_KD, own_KD, getattr(torch, DTYPES[code]))
        made_KD = made_KD.index_put((_queued(at_K, output.device),), sums_KD)
    return made_KD


def _places(output: torch.Tensor, positions_K: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Indices into an output for positions in it with all but the last dimension flat.

    Raises:
        IndexError: If a position lies behind the batch.
    """
    size = output.shape[:-1].numel()
    if positions_K.max() >= size:  # unravel_index would wrap it into another sequence
        raise IndexError(
            f"position {int(positions_K.max())} in a batch of {size} tokens: the embedding got "
            "another batch than the positions were made for"
        )
    places = torch.stack(torch.unravel_index(positions_K, output.shape[:-1]))
    return tuple(_queued(places, output.device))


def _queued(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on another device, without a wait for it: from pinned memory, copies are queued."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def flat_positions(
    records: Sequence[SoftPromptRecord], sequence_starts: Sequence[int]
) -> torch.Tensor:
    """Positions of all soft prompt rows of a micro-batch in its flattened embedding output.

    Args:
        records: One record a sequence, in the micro-batch's order.
        sequence_starts: Flat index of each sequence's first token: the cumulative lengths of a
            packed micro-batch, `i * width` in a right-padded one.

    Returns:
        int64 [K], K the sum of the lengths.
    """
    spans = [
        torch.arange(start + record.start, start + record.start + record.length)
        for record, start in zip(records, sequence_starts, strict=True)
    ]
    return torch.cat(spans) if spans else torch.empty(0, dtype=torch.int64)


def draw_rows(
    records: Sequence[SoftPromptRecord],
    hidden_size: int,
    draw: Callable[[SoftPromptRecord, int], torch.Tensor] = SoftPromptRecord.draw,
) -> torch.Tensor:
    """H of all records below each other: float32 [K, d], values rounded to each rollout's dtype.

    Args:
        records: One a sequence.
        hidden_size: d.
        draw: Where the draws come from, see `rsp_rl.injection.draw_ahead`.
    """
    lengths = [record.length for record in records]
    rows_KD = torch.empty(sum(lengths), hidden_size)
    for record, rows in zip(records, rows_KD.split(lengths), strict=True):
        if record.length:
            rows.copy_(draw(record, hidden_size))
    return rows_KD


def sums_of(records: Sequence[SoftPromptRecord]) -> torch.Tensor | None:
    """Which rows of a micro-batch are added to the embeddings at their positions.

    Args:
        records: One a sequence.

    Returns:
        int8 [K]: the place in `DTYPES` of the dtype in which a row is added, -1 of one that
        replaces; None if all of them replace.
    """
    if not any(record.added_to for record in records):
        return None
    codes = [DTYPES.index(r.dtype) if r.added_to else _REPLACES for r in records]
    lengths = torch.tensor([record.length for record in records])
    return torch.tensor(codes, dtype=torch.int8).repeat_interleave(lengths)


def rank_slice(
    positions_K: torch.Tensor,
    rows_KD: torch.Tensor,
    rank: int,
    width: int,
    sums_K: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The rows that fall into one sequence-parallel rank's slice, at positions within the slice.

    Ulysses cuts the packed sequence, padded to a multiple of the group, into equal slices of
    `width` tokens (verl `ulysses_pad_and_slice_inputs`); each rank embeds its own only.
    """
    mine_K = (positions_K >= rank * width) & (positions_K < (rank + 1) * width)
    sums_K = None if sums_K is None else sums_K[mine_K]
    return positions_K[mine_K] - rank * width, rows_KD[mine_K], sums_K
