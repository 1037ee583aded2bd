"""Recipes as Ray jobs on a cluster of two nodes (two raylets on this machine), with faults."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from rsp_rl.draws.seeds import rollout_seed
from rsp_rl.runs.checkpoints import TRACKER
from tests.integration.harness import REPOSITORY, SMALL, Run, Task, kill_tree
from tests.waiting import until

#: What ends each of the first three jobs, once it has saved a checkpoint itself.
FAULTS = {
    "ray::WorkerDict": r"actor rank [01] died during .* of step \d+; started again",
    "VLLM::EngineCore": r"vLLM server [01], node 0 died during .* of step \d+; started again",
    "rsp_rl.training.train": "exit status 137",
}

#: A step or two for each of the faults, and some for the last job.
STEPS = 8


@dataclass(frozen=True)
class Cluster:
    """Two raylets and the environment of a client."""

    nodes: list[subprocess.Popen]
    env: dict[str, str]

    def submit(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start `scripts/submit_ray_job.sh`."""
        return subprocess.Popen(
            ["bash", "scripts/submit_ray_job.sh", *arguments],
            cwd=REPOSITORY,
            env={**self.env, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # As from a terminal: a shell ignores Ctrl-C in what it runs in the background, tests
            # included, and ignored signals are inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Its exit status and output."""
        process = self.submit(*arguments, **variables)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def processes(self, name: str) -> list[psutil.Process]:
        """The nodes' processes with a name in their command line."""
        found = []
        for node in self.nodes:
            for process in psutil.Process(node.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if name in " ".join(process.cmdline()):
                        found.append(process)
        return found


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not pytest's folder: the paths of Ray's sockets must be short.
    temporary = Path(tempfile.mkdtemp(prefix="ray_"))
    port, dashboard = _free_port(), _free_port()
    env = {
        **os.environ,
        "VENV": sys.prefix,
        "PYTHONPATH": str(REPOSITORY),
        "PORT": port,
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    size = ("--num-cpus=8", "--num-gpus=1", "--object-store-memory=1000000000", "--block")
    head = (f"--temp-dir={temporary}", f"--dashboard-port={dashboard}")
    head += (f"--ray-client-server-port={_free_port()}", "--node-ip-address=127.0.0.1")
    nodes = []

    def start(role: str, *arguments: str) -> None:
        command = ["bash", "scripts/start_ray_cluster.sh", role, *arguments, *size]
        command += [f"--dashboard-agent-listen-port={_free_port()}", "--disable-usage-stats"]
        with (temporary / f"{role}.log").open("w") as log:
            node = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
        nodes.append(node)

        def started() -> bool:
            log = (temporary / f"{role}.log").read_text()
            assert node.poll() is None, log
            return "Ray runtime started" in log

        until(started)

    try:
        start("head", *head)
        start("worker", f"127.0.0.1:{port}")
        address = f"http://127.0.0.1:{dashboard}"
        yield Cluster(nodes, {**env, "RAY_ADDRESS": address, "MAX_RETRIES": "3"})
    finally:
        for node in reversed(nodes):
            kill_tree(node)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "recipe.sh"


def test_a_job_that_fails_is_submitted_again(cluster: Cluster, script: Path) -> None:
    """With the recipe's settings and overrides, and with its own exit status at the end."""
    script.write_text(
        "RUN_DIR=${RUN_DIR:-runs/none}\n"
        'echo "in $RUN_DIR with $*"\n'
        '[[ -f $RUN_DIR/again ]] || { touch "$RUN_DIR/again"; exit 1; }\n'
    )
    code, output = cluster.run(str(script), "a=1", "b='x y'", RUN_DIR=str(script.parent))
    assert code == 0, output
    assert output.count(f"in {script.parent} with a=1 b='x y'\n") == 2
    assert len(re.findall("submitted recipe-", output)) == 2
    assert "SUCCEEDED, exit status 0" in output


def test_an_error_that_would_come_again_is_not_retried(cluster: Cluster, script: Path) -> None:
    script.write_text("echo 'error: rsp.position is unknown'\nexit 2\n")
    code, output = cluster.run(str(script))
    assert code == 2
    assert len(re.findall("submitted recipe-", output)) == 1


def test_an_uploaded_recipe_runs_the_uploaded_files(cluster: Cluster, tmp_path: Path) -> None:
    """In the job's own process and in the cluster's, whatever checkout the environment names."""
    recipe = "tests/integration/uploaded_recipe.sh"
    code, output = cluster.run(recipe, UPLOAD="1", RUN_DIR=str(tmp_path))
    assert code == 0, output
    copies = {Path(line) for line in (tmp_path / "where").read_text().splitlines()}
    [copy] = copies
    assert not copy.is_relative_to(REPOSITORY)
    assert f"recipe in {copy}\n" in output


def test_a_job_outlives_its_client_and_can_be_stopped(cluster: Cluster, script: Path) -> None:
    script.write_text("echo begun\nsleep 600\n")
    client = cluster.submit(str(script))
    lines = []
    while "begun\n" not in lines:
        lines.append(client.stdout.readline())
        assert lines[-1], lines
    (job,) = re.findall("submitted (recipe-.*)", "".join(lines))
    client.send_signal(signal.SIGINT)
    output, _ = client.communicate(timeout=300)
    assert client.returncode == 130
    assert f"{job} goes on" in output
    assert f"submit_ray_job.sh stop {job} ends it" in output
    assert f"{job}  RUNNING" in cluster.run("status")[1]
    assert cluster.run("stop", job) == (0, f"{job}: STOPPED\n")
    assert f"{job}  STOPPED" in cluster.run("status", job)[1]
    code, output = cluster.run("follow", job)
    assert code != 0
    assert "begun\n" in output


@pytest.mark.timeout(1800)  # four starts
def test_faults_on_two_nodes(
    cluster: Cluster, task: Task, uninterrupted: Run, tmp_path: Path
) -> None:
    """A rank, vLLM's engine and the driver are killed; the fourth job ends as if nothing was."""
    folder = tmp_path / "run"
    tracker = folder / "checkpoints" / TRACKER
    log = tmp_path / "client.log"
    command = ["bash", "scripts/submit_ray_job.sh", "tests/integration/two_node_recipe.sh", *SMALL]
    command += [f"trainer.total_training_steps={STEPS}", "trainer.save_freq=1"]
    where = {"RUN_DIR": folder, "MODEL_DIR": task.model, "DATA_DIR": task.data}
    env = cluster.env | {name: str(path) for name, path in where.items()}
    with log.open("w") as stream:
        client = subprocess.Popen(
            command, cwd=REPOSITORY, env=env, stdout=stream, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + 1700

    def wait_for(happened: bool) -> bool:
        assert client.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        if not happened:
            time.sleep(0.2)
        return happened

    def saved() -> int:
        return int(tracker.read_text()) if tracker.is_file() else 0

    for attempt, name in enumerate(FAULTS, start=1):
        begun = saved()
        while not wait_for(saved() > begun):
            pass
        # The first one: a process that was forked off the driver has the driver's name.
        cluster.processes(name)[0].send_signal(signal.SIGKILL)
        while not wait_for(f"-retry{attempt}\n" in log.read_text()):
            pass

    assert client.wait(timeout=deadline - time.monotonic()) == 0
    output = log.read_text()
    for message in FAULTS.values():
        assert re.search(message, output), message
    assert "SUCCEEDED, exit status 0" in output

    run = Run(folder, client.returncode, output)
    assert max(run.metrics()) == STEPS
    assert max(run.column("rsp/logprob_gap_mean")) <= 1e-5
    # A step that was saved in the moment of a fault is not done again, nor dumped.
    dumped = [step for step in range(1, STEPS + 1) if run.soft_prompts_file(step).is_file()]
    assert len(dumped) >= STEPS - len(FAULTS)
    for step in set(dumped) & {1, 2, 3, 4}:
        assert run.soft_prompts(step) == uninterrupted.soft_prompts(step)
        prompts, expected = (
            [prompt for prompt, _ in each.responses(step)] for each in (run, uninterrupted)
        )
        assert prompts == expected
    # No prompt came twice, and every draw is that of its place in the run.
    indices = [{row["prompt_index"] for row in run.soft_prompts(step)} for step in dumped]
    assert len(set.union(*indices)) == 4 * len(dumped)
    for step in dumped:
        for row in run.soft_prompts(step):
            assert row["seed"] == rollout_seed(42, step, row["prompt_index"], row["rollout"])
    checkpoints = folder / "checkpoints"
    last = checkpoints / f"global_step_{STEPS}" / "actor"
    assert len(list(last.glob("model_world_size_2_*.pt"))) == 2
    assert not (checkpoints / "global_step_1" / "actor").exists()  # pruned
    # Nothing of a killed run is left to hold memory.
    until(lambda: not cluster.processes("VLLM::") and not cluster.processes("ray::WorkerDict"))
