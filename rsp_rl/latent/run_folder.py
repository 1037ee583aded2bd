"""Where a training's files lie, and which model a path means: light enough for any command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import read_json
from rsp_rl.models.folder import LATENT_FILE, refuse_thinker, resolve_model_folder

RUN_FILE, METRICS_FILE, MODEL = "run.json", "metrics.jsonl", "model"

CCOT_FILE = "ccot.json"
"""In `MODEL` of a training of CCOT, whose adapters no one loads as a model."""

_WEIGHTS = "actor/huggingface"
"""Of a checkpoint, where its model lies."""


@dataclass(frozen=True)
class TrainedThinker:
    """A model of a training, and the training as far as it is known.

    Attributes:
        model: Hugging Face folder with `latent.json`.
        run: The run's folder, or None for a model's folder alone.
        settings: The training's (`rsp_rl.latent.settings.Settings`), empty without a run.
        epochs_done: Epochs that the run has finished, skipped ones included; None without a run.
        trained_on: Digest of the problems that it is trained on; None where that is not known.
    """

    model: Path
    run: Path | None
    settings: dict[str, Any]
    epochs_done: int | None = None
    trained_on: str | None = None

    @property
    def epochs(self) -> int | None:
        """Epochs that the run is to have; None without a run."""
        return self.settings.get("epochs")


def find_thinker(path: str) -> TrainedThinker:
    """The model that a command line means: a run's, or a folder or name of its own.

    Raises:
        ConfigError: If there is none there, or a run that has not finished one.
        RunFolderError: If what the run says of itself is damaged.
    """
    root = Path(path).expanduser()
    if (root / MODEL / LATENT_FILE).is_file():
        file = root / RUN_FILE
        said = read_json(file) if file.is_file() else {}
        return TrainedThinker(
            *(root / MODEL, root, said.get("settings", {}), _epochs_done(root / METRICS_FILE)),
            said.get("of", {}).get("problems_digest"),
        )
    if (root / MODEL / CCOT_FILE).is_file():
        raise ConfigError(
            f"{root} is a run of `rsp-rl latent ccot train`: evaluate it with `rsp-rl latent ccot "
            "eval`"
        )
    if _checkpoints(root):
        raise ConfigError(
            f"{root} is a run of `rsp-rl latent train` that has not finished a model yet "
            f"({root / MODEL}: an epoch of its last stage must be done); go on with the training"
        )
    model = resolve_model_folder(path)
    if not (model / LATENT_FILE).is_file():
        raise ConfigError(
            f"{path} does not say how it thinks (no {LATENT_FILE}): it is no run or model of "
            "`rsp-rl latent train`; train one, or evaluate an ordinary model with `rsp-rl eval`"
        )
    parent = model.resolve().parent
    if model.resolve().name == MODEL and (parent / RUN_FILE).is_file():
        return find_thinker(str(parent))
    return TrainedThinker(model, None, {})


def refuse_thinkers(path: Path) -> None:
    """Make sure that a path is no model, run or checkpoint of `rsp-rl latent train`.

    Raises:
        ConfigError: If it is one.
    """
    for folder in (path, path / MODEL, path / _WEIGHTS, *_checkpoints(path)):
        refuse_thinker(folder)


def _epochs_done(metrics: Path) -> int | None:
    """By the last epoch that was validated."""
    if not metrics.is_file():
        return None
    # A line that is being written ends early.
    lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
    rows = [json.loads(line) for line in lines]
    return max((row["epoch"] + 1 for row in rows if "validation_accuracy" in row), default=0)


def _checkpoints(run: Path) -> list[Path]:
    """Models of a run's checkpoints."""
    found = run.glob(f"checkpoints/global_step_*/{_WEIGHTS}/{LATENT_FILE}")
    return [file.parent for file in sorted(found)]
