"""Numbers of the host on a device, and back.

A step of an engine is some hundred launches, each of a few microseconds, and the host is ahead of
the device only as long as it never waits: what is sent here does not wait, and what is asked for is
asked for at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rsp_rl.thoughts.rows import Rows


def sent(
    numbers: torch.Tensor | Sequence[float],
    device: torch.device | str,
    dtype: torch.dtype = torch.int64,
) -> torch.Tensor:
    """A tensor of the host, or a list, on a device.

    Memory that is not pinned is copied away before the call returns: it may be changed at once.

    Args:
        numbers: Of any shape; a list is one-dimensional.
        device: Where they go.
        dtype: Of a list; a tensor keeps its own.
    """
    if not isinstance(numbers, torch.Tensor):
        numbers = torch.tensor(numbers, dtype=dtype)
    return numbers.to(device, non_blocking=True)


def tokens_and_kinds(rows: Rows) -> tuple[list[int], list[int]]:
    """Emitted tokens and kinds on the host, for which the device is waited for once."""
    tokens, kinds = torch.stack((rows.emitted_N, rows.kind_N.int())).tolist()
    return tokens, kinds
