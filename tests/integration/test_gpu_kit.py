"""The GPU kit on a CPU: the slice that keeps it from rotting until a GPU is at hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rsp_rl.data.arithmetic import write_dataset
from tests.integration.harness import REPOSITORY, Task

#: All code but what needs a GPU; the other trainings share theirs with `training_tiny`.
CHECKS = ("plain", "engine_fp32", "training_tiny")


def test_the_proof_runs_on_a_cpu(task: Task, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    (kit / "models").mkdir(parents=True)
    (kit / "models" / "tiny").symlink_to(task.model)
    # Validation has the problems of the evaluation: the two are compared.
    write_dataset(kit / "data", train_size=256)
    proof = tmp_path / "proof"
    run = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "scripts" / "gpu" / "prove.py"), "--device", "cpu"),
            *("--kit", str(kit), "--output", str(proof), "--limit", "1100"),
            *("--only", *CHECKS),
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2, run.stdout + run.stderr  # some checks are left to run
    content = json.loads((proof / "proof.json").read_text())
    assert {name: check["status"] for name, check in content["checks"].items()} == dict.fromkeys(
        CHECKS, "passed"
    ), run.stdout
    for name in CHECKS:
        assert json.loads((proof / f"{name}.json").read_text())["finished"]
