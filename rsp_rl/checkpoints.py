"""verl checkpoints as Hugging Face folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rsp_rl.run_folder import RunFolderError


def latest_checkpoint(checkpoints: Path) -> Path:
    """The newest checkpoint that was saved whole (verl writes its tracker file last).

    Raises:
        RunFolderError: If there is none.
    """
    tracker = checkpoints / "latest_checkpointed_iteration.txt"
    if not tracker.is_file():
        raise RunFolderError(
            f"{checkpoints} holds no finished checkpoint; is trainer.save_freq above 0?"
        )
    folder = checkpoints / f"global_step_{tracker.read_text().strip()}"
    if not folder.is_dir():
        raise RunFolderError(f"{tracker} names {folder.name}, which is missing; restore it")
    return folder


def merge_checkpoint(checkpoint: Path) -> Path:
    """Convert an FSDP checkpoint with verl's own merger, once, to `<checkpoint>/merged`.

    Args:
        checkpoint: A `global_step_N` folder.

    Returns:
        The Hugging Face folder; it exists only when it is complete.

    Raises:
        RunFolderError: If verl's merger failed, with the end of its output.
    """
    target = checkpoint / "merged"
    if target.is_dir():
        return target
    partial = checkpoint / f".merged.{os.getpid()}"
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(checkpoint / "actor"), "--target_dir", str(partial)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunFolderError(
            f"verl's merger could not convert {checkpoint}; its last words:\n{done.stderr[-2000:]}"
        )
    os.replace(partial, target)
    return target
