"""Runs the real training entry point in a process of its own, as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]

#: Small enough for a test, large enough for groups, two updates a step and micro-batches.
SMALL = (
    "data.train_batch_size=4",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=512",
    "data.max_response_length=24",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
    # What `rsp_rl.training.cpus` says is needed is enough.
    "ray_kwargs.ray_init.num_cpus=5",
)

#: All of a step's samples in one mini-batch. verl orders them as rollouts finish, which decides who
#: shares a mini-batch where there are several: two runs then differ by more than rounding.
ONE_UPDATE = "actor_rollout_ref.actor.ppo_mini_batch_size=4"


@dataclass(frozen=True)
class Task:
    """A tiny model and its data, as folders."""

    model: Path
    data: Path

    def overrides(self) -> list[str]:
        """Hydra overrides that name them."""
        return [
            f"actor_rollout_ref.model.path={self.model}",
            f"data.train_files={self.data / 'train.parquet'}",
            f"data.val_files={self.data / 'heldout.parquet'}",
        ]


@dataclass(frozen=True)
class Run:
    """A training run that ended, by itself or not."""

    folder: Path
    returncode: int
    output: str

    def metrics(self) -> dict[int, dict[str, float]]:
        """Logged metrics by step."""
        lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        return {record["step"]: record["data"] for record in map(json.loads, lines)}

    def column(self, name: str) -> list[float]:
        """One metric over the training steps."""
        return [data[name] for data in self.metrics().values() if "rsp/logprob_gap_mean" in data]

    def soft_prompts_file(self, step: int) -> Path:
        """Where one step's records are dumped."""
        return self.folder / "samples" / "train" / f"{step}.soft_prompts.jsonl"

    def soft_prompts(self, step: int) -> list[dict]:
        """The records of one step's rollouts, without verl's random uid."""
        rows = [json.loads(line) for line in self.soft_prompts_file(step).read_text().splitlines()]
        return [{name: value for name, value in row.items() if name != "uid"} for row in rows]

    def responses(self, step: int) -> list[tuple[str, str]]:
        """Prompt and response texts of one step, sorted."""
        file = self.folder / "samples" / "train" / f"{step}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        return sorted((row["input"], row["output"]) for row in rows)


def train(
    folder: Path,
    task: Task,
    *overrides: str,
    steps: int = 2,
    **how: Any,
) -> Run:
    """Train with the `tiny_cpu` config.

    Args:
        folder: Run folder.
        task: Model and data.
        *overrides: Hydra overrides after `SMALL`.
        steps: Training steps.
        **how: See `launch`.
    """
    command = ["--config-name", "tiny_cpu", *task.overrides(), *SMALL]
    command += [f"trainer.total_training_steps={steps}", *overrides]
    return launch(folder, command, **how)


def launch(
    folder: Path,
    arguments: list[str],
    env: dict[str, str] | None = None,
    kill_when: Callable[[], bool] | None = None,
    timeout_s: float = 600,
) -> Run:
    """Run the training entry point, in a session of its own.

    Args:
        folder: Run folder.
        arguments: Config and overrides.
        env: Environment variables to add.
        kill_when: Polled; once true, the whole process tree gets SIGKILL.
        timeout_s: After that the tree is killed.

    Raises:
        TimeoutError: After `timeout_s`; nothing of the run is left.
    """
    command = [sys.executable, "-m", "rsp_rl.training.train", *arguments, f"run_dir={folder}"]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "output.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_s
        while process.poll() is None:
            if kill_when is not None and kill_when():
                kill_tree(process)
            elif time.monotonic() > deadline:
                kill_tree(process)
                raise TimeoutError(f"training did not end in {timeout_s} s; see {log}")
            time.sleep(0.2)
    return Run(folder, process.returncode, log.read_text(errors="replace"))


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL a process and all its descendants: Ray's daemons leave the process group."""
    root = psutil.Process(process.pid)
    family = root.children(recursive=True)
    for member in [root, *family]:
        with suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    # The root is left to Popen, which must be the one to learn its exit status.
    psutil.wait_procs(family, timeout=120)
    process.wait(timeout=120)
