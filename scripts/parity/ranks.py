"""Runs a function on N gloo ranks, each a process of its own, and brings their results back.

The ranks are forked off a clean server that has imported torch and verl once, so that a call costs
a fraction of a second and inherits nothing from the caller's process.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

# verl reads it when it is first imported; the fork server and the ranks inherit it.
os.environ.setdefault("VERL_PLATFORM", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

_PRELOADED = [
    "hydra",
    "torch.distributed.fsdp",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.auto.modeling_auto",
    "rsp_rl.training.train",
    "rsp_rl.training.verl_plugin.cpu_engine",
    "verl.workers.utils.losses",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_PRELOADED)


def run_on_ranks(
    function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 300
) -> list[Any]:
    """Call `function(rank, *args)` on every rank of a gloo group of `world_size` processes.

    Args:
        function: Picklable by name, as are its arguments and its result.
        world_size: Number of ranks.
        *args: Passed on.
        timeout: Seconds after which hanging ranks are killed.

    Returns:
        The results in the order of the ranks.

    Raises:
        RuntimeError: If a rank fails; the message is its traceback.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [
            _CONTEXT.Process(target=_run_rank, args=(function, rank, world_size, folder, args))
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        _wait(ranks, folder, timeout)
        if failures := sorted(folder.glob("failure.*")):
            raise RuntimeError("\n".join(file.read_text() for file in failures))
        if dead := [rank for rank, process in enumerate(ranks) if process.exitcode]:
            codes = [ranks[rank].exitcode for rank in dead]
            raise RuntimeError(f"ranks {dead} ended with exit codes {codes} in {timeout} s")
        return [pickle.loads((folder / f"result.{r}").read_bytes()) for r in range(world_size)]


def _wait(ranks: list[Any], folder: Path, timeout: float) -> None:
    """Wait for all ranks; after a failure the others wait for ever in a collective: end them."""
    deadline = time.monotonic() + timeout
    while any(process.is_alive() for process in ranks):
        if time.monotonic() > deadline or any(folder.glob("failure.*")):
            time.sleep(0.2)
            for process in ranks:
                process.kill()
        time.sleep(0.01)
    for process in ranks:
        process.join()


def _run_rank(
    function: Callable[..., Any], rank: int, world_size: int, folder: Path, args: tuple[Any, ...]
) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'rendezvous'}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=120),
        )
        result = function(rank, *args)
        (folder / f"result.{rank}").write_bytes(pickle.dumps(result))
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    except BaseException:
        partial = folder / f"partial.{rank}"
        partial.write_text(f"rank {rank} of {world_size}:\n{traceback.format_exc()}")
        partial.rename(folder / f"failure.{rank}")
        raise SystemExit(1) from None
