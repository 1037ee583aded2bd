"""The trackers of `docs/rollouts.md`, as it has them: opened by verl, without a network, read back.

Each in a process of its own, whose Python may connect to this machine alone: trackers leave threads
and services behind.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from rsp_rl.training.configs import compose_config
from rsp_rl.training.trackers import PACKAGES, check_trackers

REPOSITORY = Path(__file__).resolve().parents[4]
EXAMPLE = re.compile(
    r"^(?P<variables>(?:\w+=\S+ )*)rsp-rl train .*trainer\.logger='\[(?P<names>[\w,]+)\]'$",
    re.MULTILINE,
)
EXAMPLES = {
    match["names"].split(",")[-1]: match
    for match in EXAMPLE.finditer((REPOSITORY / "docs" / "rollouts.md").read_text())
}

#: Logs two steps as a run does; a connection to elsewhere ends the process.
PROGRAM = """
import os, socket, sys
from omegaconf import OmegaConf
from verl.utils.tracking import Tracking
from rsp_rl.training.configs import compose_config

connect = socket.socket.connect
def connect_here(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        print("a connection to", address, file=sys.stderr, flush=True)
        os._exit(9)
    return connect(self, address)
socket.socket.connect = connect_here

config = compose_config("dapo_rsp", ["actor_rollout_ref.model.path=M"])
tracking = Tracking("rsp_rl", "mine", sys.argv[1:], OmegaConf.to_container(config, resolve=True))
for step in (1, 2):
    tracking.log({"critic/score/mean": step / 4, "val-core/sums/acc/mean@1": 0.5}, step=step)
tracking.finish()
assert set(tracking.logger) == set(sys.argv[1:]), tracking.logger
"""


def of_tensorboard(folder: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars("critic/score/mean")]


def of_wandb(folder: Path) -> list[float]:
    """Of its records, which no public reader opens: a name, and its number as JSON."""
    (file,) = folder.glob("runs/wandb/offline-run-*/run-*.wandb")
    found = re.findall(rb"critic/score/mean[^:\w]{1,6}([\d.]+)", file.read_bytes(), re.DOTALL)
    return [float(number) for number in dict.fromkeys(found)]  # the last step's comes twice


def of_swanlab(folder: Path) -> list[float]:
    """Likewise; its number is a protocol buffer's double, after its tag."""
    (file,) = folder.glob("runs/swanlog/run-*/*.swanlab")
    found = re.findall(rb"critic/score/mean.{4,40}?\*\t\t(.{8})", file.read_bytes(), re.DOTALL)
    return [struct.unpack("<d", number)[0] for number in found]


def of_mlflow(folder: Path) -> list[float]:
    with sqlite3.connect(folder / "runs" / "mlflow.db") as database:
        rows = database.execute("select key, value from metrics order by step").fetchall()
        assert ("val-core/sums/acc/mean_at_1", 0.5) in rows
    return [value for key, value in rows if key == "critic/score/mean"]


WRITTEN: dict[str, Callable[[Path], list[float]]] = {
    "tensorboard": of_tensorboard,
    "wandb": of_wandb,
    "swanlab": of_swanlab,
    "mlflow": of_mlflow,
}


def test_each_has_one_example() -> None:
    assert list(EXAMPLES) == list(WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_example_writes_what_is_logged(name: str, tmp_path: Path) -> None:
    if find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{name}: the package {PACKAGES[name]} is not installed, its example not tried")
    example = EXAMPLES[name]
    names = example["names"].split(",")
    own = dict(pair.split("=", 1) for pair in example["variables"].split())
    (tmp_path / "runs").mkdir()
    # What a run sets itself, and nothing of a login.
    kept = {key: value for key, value in os.environ.items() if "API_KEY" not in key}
    run = {"VERL_FILE_LOGGER_PATH": "metrics.jsonl", "TENSORBOARD_DIR": "tensorboard"}
    path = os.pathsep.join(place for place in sys.path if place)
    environment = {**kept, **run, **own, "HOME": str(tmp_path), "PYTHONPATH": path}
    check_trackers(compose_config("dapo_rsp", [f"trainer.logger=[{','.join(names)}]"]), environment)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        **{"cwd": tmp_path, "env": environment, "text": True},
        **{"capture_output": True, "check": False, "timeout": 300},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert WRITTEN[name](tmp_path) == [0.25, 0.5]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["data"]["critic/score/mean"] for line in lines] == [0.25, 0.5]
