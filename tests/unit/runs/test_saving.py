"""A crash or a full disk while saving never costs a run its last whole checkpoint."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import locked
from rsp_rl.runs.checkpoints import (
    SIZES_FILE,
    TRACKER,
    check_whole,
    checkpoint_to_resume,
    finished_checkpoints,
)
from rsp_rl.runs.saving import prune, staged

RANKS = 2


def save(checkpoints: Path, step: int, keep: int | None = None, size: int = 1000) -> None:
    """What verl's trainer does in `_save_checkpoint`: shards, other files, its own tracker."""
    with staged(checkpoints, step) as staging:
        folder = staging / f"global_step_{step}"
        (folder / "actor").mkdir(parents=True)
        for rank in range(RANKS):
            shard = folder / "actor" / f"model_world_size_{RANKS}_rank_{rank}.pt"
            shard.write_bytes(bytes([step]) * size)
        (folder / "data.pt").write_bytes(bytes([step]) * 10)
        (folder / "transfer_queue").mkdir()  # of the asynchronous trainer
        (folder / "transfer_queue" / "unit_0").write_bytes(bytes([step]) * 10)
        (staging / TRACKER).write_text(str(step))
    prune(checkpoints, keep)


def resumed(checkpoints: Path) -> Path | None:
    """The checkpoint that a run would resume from, having passed all checks."""
    trainer = {"default_local_dir": str(checkpoints), "resume_mode": "auto"}
    checkpoint = checkpoint_to_resume(OmegaConf.create({"trainer": trainer}))
    if checkpoint:
        check_whole(checkpoint, RANKS)
    return checkpoint


def step_of(checkpoint: Path | None) -> int | None:
    """Its number, its content being that of one save."""
    if checkpoint is None:
        return None
    shards = list((checkpoint / "actor").glob("*.pt"))
    (content,) = {shard.read_bytes()[0] for shard in shards}
    assert len(shards) == RANKS
    assert checkpoint.name == f"global_step_{content}"
    return content


def in_child(action: Callable[[], None], survives: int) -> bool:
    """Run an action in a forked process that is killed at its n-th access to the file system.

    Args:
        action: What to run.
        survives: Number of accesses (opened, made, renamed, removed) before the one that kills.

    Returns:
        Whether the action got to its end.
    """
    child = os.fork()
    if child == 0:
        left = survives

        def kill(event: str, args: tuple) -> None:
            nonlocal left
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir"):
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.addaudithook(kill)
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("present", "saved", "keep", "outcomes"),
    [
        ([], 1, None, [None, 1]),
        ([1], 2, None, [1, 2]),
        ([1], 2, 1, [1, 2]),
        ([1, 2, 3], 4, 2, [3, 4]),
        # A run that went back to step 1 (resume_path) and comes to step 2 again.
        ([1, 2], 2, None, [2, 1, 2]),
        ([2], 2, None, [2, None, 2]),
    ],
)
def test_killed_anywhere_a_run_resumes_from_a_whole_checkpoint(
    present: list[int], saved: int, keep: int | None, outcomes: list[int | None], tmp_path: Path
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    for step in present:
        save(before, step)
    seen: list[int | None] = []
    for survives in range(1000):
        checkpoints = tmp_path / str(survives)
        shutil.copytree(before, checkpoints)
        whole = in_child(lambda: save(checkpoints, saved, keep), survives)  # noqa: B023
        step = step_of(resumed(checkpoints))
        if not seen or seen[-1] != step:
            seen.append(step)
        # The next save takes up what was left behind.
        save(checkpoints, 9, keep=1)
        assert step_of(resumed(checkpoints)) == 9
        assert list(finished_checkpoints(checkpoints)) == [9]
        assert not (checkpoints / ".saving").exists()
        assert not (checkpoints / ".pruned").exists()
        if whole:
            break
    assert whole
    assert survives > 20
    # The content of a step that is saved twice is the same; the way there is not.
    assert seen == outcomes


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk; the next test limits file sizes instead")
    try:
        save(disk, 1, size=40_000)
        with pytest.raises(OSError, match="No space left on device"):
            save(disk, 2, size=40_000)
        assert step_of(resumed(disk)) == 1
        assert sorted(path.name for path in disk.iterdir()) == ["global_step_1", TRACKER]
        # Small enough for what is left: room that the failed save took was given back.
        save(disk, 3, size=4000)
        assert step_of(resumed(disk)) == 3
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_that_cannot_grow_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(tmp_path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert step_of(resumed(tmp_path)) == 1
    assert not (tmp_path / "global_step_2").exists()


def test_a_checkpoint_without_a_ranks_file_is_not_published(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def save_on_one_node() -> None:
        with staged(tmp_path, 2) as staging:
            actor = staging / "global_step_2" / "actor"
            actor.mkdir(parents=True)
            (actor / "model_world_size_2_rank_0.pt").write_bytes(b"weights")

    with pytest.raises(RunFolderError, match=r"rank 1 saved .* elsewhere: .*nodes share"):
        save_on_one_node()
    assert step_of(resumed(tmp_path)) == 1


@pytest.mark.parametrize("name", ["actor/model_world_size_2_rank_1.pt", "data.pt"])
def test_damage_is_named_with_the_way_back(name: str, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    (tmp_path / "global_step_3" / name).unlink()
    file = tmp_path / "global_step_4" / name
    file.write_bytes(file.read_bytes()[:-1])
    way_back = f"resume_from_path={tmp_path / 'global_step_2'}"
    with pytest.raises(RunFolderError, match=rf"{file.name} has \d+ bytes of \d+: .*{way_back}"):
        resumed(tmp_path)
    file.unlink()
    with pytest.raises(RunFolderError, match=f"{file.name} is missing: .*{way_back}"):
        resumed(tmp_path)


def test_damage_of_the_only_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "global_step_1" / "data.pt").unlink()
    with pytest.raises(RunFolderError, match=r"data\.pt is missing: .*resume_mode=disable"):
        resumed(tmp_path)
    (tmp_path / "global_step_1" / SIZES_FILE).write_text("{")
    with pytest.raises(RunFolderError, match=r"sizes\.json is damaged"):
        resumed(tmp_path)


def test_an_empty_tracker_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / TRACKER).write_text("")  # plain verl on a full disk
    with pytest.raises(RunFolderError, match=f"{TRACKER} holds '' and names no checkpoint"):
        resumed(tmp_path)


def test_another_number_of_ranks_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ConfigError, match="was saved by 2 ranks and this run has 4"):
        check_whole(tmp_path / "global_step_1", ranks=4)


def test_pruning_keeps_the_newest_and_what_was_made_of_the_others(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        save(tmp_path, step)
    merged = tmp_path / "global_step_8" / "merged"
    merged.mkdir()
    prune(tmp_path, None)
    assert list(finished_checkpoints(tmp_path)) == [8, 9, 10, 11]
    with locked(tmp_path / "global_step_9"):  # an evaluation is converting it
        prune(tmp_path, 2)
        assert list(finished_checkpoints(tmp_path)) == [9, 10, 11]
    prune(tmp_path, 2)
    assert list(finished_checkpoints(tmp_path)) == [10, 11]
    assert merged.is_dir()
    assert step_of(resumed(tmp_path)) == 11


@pytest.mark.parametrize("keep", [0, -1, -3])
def test_a_number_that_keeps_none_keeps_all_as_verl_does(keep: int, tmp_path: Path) -> None:
    for step in (8, 9, 10):
        save(tmp_path, step, keep)
    assert list(finished_checkpoints(tmp_path)) == [8, 9, 10]
