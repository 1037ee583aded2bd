"""The README's main command, and what a person sees of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.harness import REPOSITORY

#: Of this run; the recipe's own are 30, with a validation and a checkpoint every 10.
STEPS, EVERY = 4, 2

#: Lines that the recipe may print at its own settings, set-up aside.
MOST_LINES = 100


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder of the run, and what the recipe printed after set-up."""
    folder = tmp_path_factory.mktemp("recipe")
    settings = {
        "VENV": sys.prefix,
        "RUN_DIR": str(folder / "run"),
        "MODEL_DIR": str(folder / "model"),
        "DATA_DIR": str(folder / "data"),
        "STEPS": str(STEPS),
        "SAVE_FREQ": str(EVERY),
        "TEST_FREQ": str(EVERY),
    }
    done = subprocess.run(
        ["bash", "recipes/dapo_rsp_tiny_cpu.sh"],
        cwd=REPOSITORY,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return folder / "run", done.stdout.rpartition("setup: done\n")[2]


def test_the_recipe_ends_with_its_summary(recipe: tuple[Path, str]) -> None:
    folder, _ = recipe
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["rsp_length"] == 8
    assert summary["logprob_gap_mean"] < 1e-5
    assert 0 < summary["seconds_per_step"] < summary["wall_seconds"]
    for name in ("metrics.jsonl", "training.png", "evaluation/tiny/report.html"):
        assert (folder / name).is_file()


def test_it_prints_less_than_a_hundred_lines(recipe: tuple[Path, str]) -> None:
    """Counted at the recipe's own settings: a line a step, a validation, a checkpoint."""
    _, output = recipe
    lines = output.splitlines()
    validations = [line for line in lines if line.startswith("validation at step ")]
    checkpoints = [line for line in lines if line.startswith("checkpoint of step ")]
    steps = [line for line in lines if re.match(r"step \d+/\d+  reward ", line)]
    assert len(steps) == STEPS
    assert len(validations) == 1 + STEPS // EVERY
    assert len(checkpoints) == STEPS // EVERY
    others = len(lines) - len(steps) - len(validations) - len(checkpoints)
    assert others + 30 + (1 + 3) + 3 < MOST_LINES, output


def test_what_libraries_print_is_in_the_logs(recipe: tuple[Path, str]) -> None:
    folder, output = recipe
    for chatter in ("pid=", "nanobind", "NUMA", "Loading safetensors", "Warning", "INFO:", "\r"):
        assert chatter not in output, output
    logs = {path.name.partition("-")[0]: path.read_text() for path in (folder / "logs").iterdir()}
    assert {"driver.log", "TaskRunner", "WorkerDict", "SoftPromptVLLMServer"} <= set(logs)
    assert "step:1 - " in logs["TaskRunner"]  # verl's eighty numbers
    assert "Started a local Ray instance" in logs["driver.log"]
    assert f"{folder / 'logs'}, a file a process" in output
    assert (folder / "evaluation" / "tiny" / "logs" / "engine.log").stat().st_size
