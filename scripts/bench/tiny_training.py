"""The tiny config's training on random weights, for the benchmarks of a step and of start-up."""

from __future__ import annotations

import sys
from pathlib import Path

from rsp_rl.data.arithmetic import write_dataset
from rsp_rl.tiny import make_tiny_model


def make_inputs(folder: Path, **sizes: int) -> None:
    """Write model and data; `sizes` are those of `make_tiny_model`."""
    make_tiny_model(folder / "model", steps=0, **sizes)
    write_dataset(folder / "data")


def training_command(inputs: Path, run_dir: Path, steps: int, *overrides: str) -> list[str]:
    """The command of a training without checkpoints; Hydra overrides last."""
    return [
        *(sys.executable, "-m", "rsp_rl.training.train", "--config-name", "tiny_cpu"),
        f"run_dir={run_dir}",
        f"actor_rollout_ref.model.path={inputs / 'model'}",
        f"data.train_files={inputs / 'data' / 'train.parquet'}",
        f"data.val_files={inputs / 'data' / 'heldout.parquet'}",
        f"trainer.total_training_steps={steps}",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        *overrides,
    ]
