"""Several processes that train one model: each has all weights and a share of every batch.

`torchrun --nproc-per-node N -m rsp_rl.cli latent train ...`. Gradients are sums over tokens,
divided by the tokens of the whole batch, so that the number of processes changes rounding alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Place:
    """A process among those of a training.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        device: Its own.
    """

    rank: int
    size: int
    device: torch.device

    def meet(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def processes() -> Iterator[Place]:
    """This process's place; without torchrun it is alone."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Place(rank, size, device)
    finally:
        if size > 1:
            dist.destroy_process_group()


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Sum tensors over all processes, in place."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.all_reduce(tensor)
