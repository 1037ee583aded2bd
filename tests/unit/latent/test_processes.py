"""Two processes train the model that one trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsp_rl.data.step_problems import write_step_problems

SETTINGS = {
    "method": "coconut", "max-stage": 1, "epochs-per-stage": 1, "epochs": 2, "learning-rate": 1e-3,
    "batch-size": 16, "micro-batch-size": 4, "validation-limit": 4, "max-new-tokens": 4,
}  # fmt: skip


def test_losses_of_two_processes_are_those_of_one(gpt2, step_problems, tmp_path):
    data = tmp_path / "train.jsonl"
    write_step_problems(data, step_problems)
    command = [
        "-m", "rsp_rl.cli", "latent", "train", "--model", str(gpt2), "--train", str(data),
        "--validation", str(data), *(f"--{name}={value}" for name, value in SETTINGS.items()),
    ]  # fmt: skip
    losses = {}
    for size in (1, 2):
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
        run = tmp_path / str(size)
        subprocess.run(
            [sys.executable, *launch, *command, "--output", str(run)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[3],
        )
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        losses[size] = [line["loss"] for line in lines if "loss" in line]
    assert len(losses[1]) == 8
    assert losses[2] == pytest.approx(losses[1], rel=1e-5)
