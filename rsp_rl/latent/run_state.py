"""The folder of a training: whose it is, its checkpoints, its metrics, its finished model.

`run.json` holds settings and what they were applied to, `metrics.jsonl` a line of figures a step,
`checkpoints/` the newest state, whole or not there, and `model/` what came of it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import read_json, write_json, write_whole
from rsp_rl.latent.run_folder import METRICS_FILE, MODEL, RUN_FILE
from rsp_rl.runs.checkpoints import TRACKER, damage, latest_checkpoint
from rsp_rl.runs.saving import staged

#: The part of a checkpoint where other commands look for a model.
_PART = "actor"

_FRESH, _OLD = ".model.new", ".model.old"


def claim(run: Path, settings: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Note what a run is, or make sure that it is this one; its model is there again if it was.

    Args:
        run: Its folder.
        settings: By name.
        described: What model and data are, digests among it.

    Raises:
        RunFolderError: If it is another one, naming the first difference.
    """
    if (run / _OLD).exists() and not (run / MODEL).exists():
        os.replace(run / _OLD, run / MODEL)  # cut off between the two moves of `finished_model`
    wanted = json.loads(json.dumps({"settings": dict(settings), "of": dict(described)}))
    file = run / RUN_FILE
    if not file.is_file():
        write_json(file, wanted)
        return
    there = read_json(file)
    for part in ("settings", "of"):
        for name, value in wanted[part].items():
            if (old := there.get(part, {}).get(name)) != value:
                raise RunFolderError(
                    f"{run} is a run with {name}={old!r}, not {value!r}; go on with the same, or "
                    "name another folder"
                )


def note(run: Path, figures: Mapping[str, Any]) -> None:
    """Add a line to `metrics.jsonl`."""
    with (run / METRICS_FILE).open("a") as file:
        file.write(json.dumps(dict(figures)) + "\n")


def forget(run: Path, stays: Callable[[dict[str, Any]], bool]) -> None:
    """Leave those lines of `metrics.jsonl` that lie before a checkpoint: the others come again."""
    file = run / METRICS_FILE
    text = file.read_text() if file.is_file() else ""
    lines = [line for line in text.splitlines() if line.endswith("}")]  # the last may be cut off
    write_whole(file, "".join(line + "\n" for line in lines if stays(json.loads(line))))


def newest(run: Path) -> Path | None:
    """What the newest checkpoint holds, if there is one.

    Raises:
        RunFolderError: If it is not whole.
    """
    checkpoints = run / "checkpoints"
    if not (checkpoints / TRACKER).is_file():
        return None
    folder = latest_checkpoint(checkpoints)
    if problem := damage(folder):
        raise RunFolderError(
            f"{problem}: the checkpoint is not whole, and no other is kept; restore the file, or "
            "train anew in another --output"
        )
    return folder / _PART


@contextmanager
def checkpoint(run: Path, step: int) -> Iterator[Path]:
    """A folder to fill, which is the newest checkpoint, in place of the one before, at the end."""
    checkpoints = run / "checkpoints"
    _sweep(checkpoints)  # of a save that was cut off before it was named
    with staged(checkpoints, step) as staging:
        part = staging / f"global_step_{step}" / _PART
        part.mkdir(parents=True)
        yield part
    _sweep(checkpoints)


def _sweep(checkpoints: Path) -> None:
    """Remove all checkpoints but the one that is named the newest."""
    tracker = checkpoints / TRACKER
    named = latest_checkpoint(checkpoints) if tracker.is_file() else None
    for folder in checkpoints.glob("global_step_*"):
        if folder != named:
            shutil.rmtree(folder)


def finished(run: Path) -> Path:
    """The model of a run whose training is done.

    Raises:
        RunFolderError: If it is gone.
    """
    if not (run / MODEL).is_dir():
        raise RunFolderError(
            f"{run / MODEL} is missing: its training is done, and its model is gone; restore it, "
            "or train anew in another --output"
        )
    return run / MODEL


@contextmanager
def finished_model(run: Path) -> Iterator[Path]:
    """A folder to fill, which is the run's model, in place of an earlier one, at the end."""
    fresh, old = run / _FRESH, run / _OLD
    for left in (fresh, old):  # of a run that was cut off
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir()
    yield fresh
    if (run / MODEL).exists():
        os.replace(run / MODEL, old)
    os.replace(fresh, run / MODEL)
    shutil.rmtree(old, ignore_errors=True)
