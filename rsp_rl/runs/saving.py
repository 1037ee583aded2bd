"""Checkpoints that are whole or not there: saved aside, moved into place, then named the newest.

verl writes a checkpoint where it will stay, deletes old ones before it has named the new one, and
names it by truncating a file. A crash or a full disk in between leaves a run with half a
checkpoint, or with none. Here a save goes through these states, and a run can be resumed from each:

1. verl writes into `checkpoints/.saving/global_step_N`; the previous checkpoint is the newest.
2. The shards of all ranks are there; the sizes of all files are listed in `sizes.json`; all is on
   the disk.
3. The folder is moved to `checkpoints/global_step_N`.
4. `latest_checkpointed_iteration.txt`, replaced as a whole, names it.
5. Old checkpoints go.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import locked, write_json, write_whole
from rsp_rl.runs.checkpoints import SIZES_FILE, TRACKER, finished_checkpoints

_STAGING = ".saving"
_PRUNED = ".pruned"

#: What verl saves one file a rank of, in a checkpoint's `actor` (and `critic`) folder.
_SHARD = re.compile(r"(\w+)_world_size_(\d+)_rank_(\d+)\.pt")


@contextmanager
def staged(checkpoints: Path, step: int) -> Iterator[Path]:
    """A folder to save a checkpoint in, which becomes the run's newest when the block ends well.

    Args:
        checkpoints: The run's folder of checkpoints, on a disk that all nodes share.
        step: Global step of the checkpoint.

    Yields:
        A folder beside the checkpoints, in which the block makes `global_step_<step>`.

    Raises:
        RunFolderError: If a rank's file is missing from what was saved.
        OSError: If the disk is full; what was written is removed.
    """
    staging = checkpoints / _STAGING
    shutil.rmtree(staging, ignore_errors=True)  # of a save that was cut off
    staging.mkdir(parents=True)
    try:
        yield staging
        _publish(staging / f"global_step_{step}", checkpoints, step)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(saved: Path, checkpoints: Path, step: int) -> None:
    for part in saved.iterdir():
        if part.is_dir():
            _check_shards(part)
    files = [path for path in sorted(saved.rglob("*")) if path.is_file()]
    sizes = {str(file.relative_to(saved)): file.stat().st_size for file in files}
    write_json(saved / SIZES_FILE, sizes)
    _flush(saved)
    target = checkpoints / saved.name
    if target.exists():
        # Training went back to an earlier checkpoint: what came after that one is another future.
        _name_newest(checkpoints, below=step)
        os.replace(target, saved.with_name("replaced"))
    os.replace(saved, target)
    _flush(checkpoints, recursive=False)
    write_whole(checkpoints / TRACKER, str(step))


def _check_shards(part: Path) -> None:
    """Refuse a checkpoint that lacks a rank's file.

    Raises:
        RunFolderError: Naming the file; the likely cause is a disk that the nodes do not share.
    """
    for match in filter(None, (_SHARD.fullmatch(file.name) for file in part.iterdir())):
        kind, ranks, _ = match.groups()
        for rank in range(int(ranks)):
            wanted = part / f"{kind}_world_size_{ranks}_rank_{rank}.pt"
            if not wanted.is_file():
                raise RunFolderError(
                    f"rank {rank} saved its part of the checkpoint elsewhere: {wanted} is "
                    "missing; put run_dir on a disk that all nodes share, at the same path"
                )


def _flush(folder: Path, recursive: bool = True) -> None:
    """Have the disk hold a folder and its files, before what comes next gets there."""
    inside = folder.rglob("*") if recursive else ()
    for path in [*inside, folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _name_newest(checkpoints: Path, below: int) -> None:
    """Let the tracker name the newest checkpoint below a step, or none."""
    earlier = [step for step in finished_checkpoints(checkpoints) if step < below]
    if earlier:
        write_whole(checkpoints / TRACKER, str(max(earlier)))
    else:
        (checkpoints / TRACKER).unlink(missing_ok=True)


def prune(checkpoints: Path, keep: int | None) -> None:
    """Take weights, and rollouts under way, out of all checkpoints but the newest ones.

    As with verl's own pruning, the rest stays, a converted model (`merged/`) among it. A checkpoint
    that is being converted this moment is left to the next time.

    Args:
        checkpoints: The run's folder of checkpoints.
        keep: How many to keep (`trainer.max_actor_ckpt_to_keep`); `None`, 0 and below keep all, as
            in verl.
    """
    trash = checkpoints / _PRUNED
    shutil.rmtree(trash, ignore_errors=True)  # of a pruning that was cut off
    if keep is None or keep < 1:
        return
    for folder in list(finished_checkpoints(checkpoints).values())[:-keep]:
        try:
            with locked(folder):
                for part in ("transfer_queue", "critic", "actor"):
                    if (folder / part).is_dir():
                        trash.mkdir(exist_ok=True)
                        os.replace(folder / part, trash / f"{folder.name}_{part}")
        except RunFolderError:
            continue
        shutil.rmtree(trash, ignore_errors=True)
