"""Scripts and manifests for clusters that are not at hand: what of them can be checked here."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import yaml

from rsp_rl.runs.recipes import setting_names

REPOSITORY = Path(__file__).resolve().parents[3]
SCRIPTS = REPOSITORY / "scripts"
START = SCRIPTS / "start_ray_cluster.sh"
SUBMIT = SCRIPTS / "submit_ray_job.sh"
SBATCH = SCRIPTS / "slurm" / "train.sbatch"

#: Stands for the interpreter and for Ray: prints its environment and arguments.
SHOW = '#!/usr/bin/env bash\necho "auth=$RAY_AUTH_MODE"\nprintf \'%s\\n\' "$@"\n'


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment whose commands show what they are asked."""
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "ray"):
        (binaries / name).write_text(SHOW)
        (binaries / name).chmod(0o755)
    return binaries.parent


def _run(script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script), *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "script", [*sorted(SCRIPTS.rglob("*.sh")), SBATCH], ids=lambda path: path.name
)
def test_scripts_are_bash(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_head_makes_a_token_and_the_others_find_it(venv: Path, tmp_path: Path) -> None:
    where = {"VENV": str(venv), "HOME": str(tmp_path)}
    done = _run(START, "head", "--num-gpus=8", PORT="7000", **where)
    assert done.stdout.split() == ["auth=token", "start", "--head", "--port=7000", "--num-gpus=8"]
    token = tmp_path / ".ray" / "auth_token"
    assert re.fullmatch("[0-9a-f]{64}", token.read_text())
    assert token.stat().st_mode & 0o077 == 0
    made = token.read_text()
    _run(START, "head", **where)
    assert token.read_text() == made
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        done = _run(START, "worker", address, "--num-gpus=8", **where)
    assert done.stdout.split() == ["auth=token", "start", f"--address={address}", "--num-gpus=8"]
    assert _run(START, "stop", **where).stdout.split() == ["auth=token", "stop"]


@pytest.mark.parametrize("arguments", [(), ("tail",), ("worker",)])
def test_wrong_use_says_how(arguments: tuple[str, ...], venv: Path, tmp_path: Path) -> None:
    done = _run(START, *arguments, VENV=str(venv), HOME=str(tmp_path))
    assert done.returncode == 2
    assert "scripts/start_ray_cluster.sh worker HEAD_IP:6379" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["recipes/a.sh", "x=1"], {}, ["submit", "recipes/a.sh", "x=1"]),
        (["recipes/a.sh"], {"UPLOAD": "1"}, ["submit", "--upload", "recipes/a.sh"]),
        (["stop", "job1"], {}, ["stop", "job1"]),
        (["status"], {"UPLOAD": "1"}, ["status"]),
        (["follow", "job1"], {}, ["follow", "job1"]),
    ],
)
def test_submission(
    arguments: list[str], variables: dict[str, str], expected: list[str], venv: Path
) -> None:
    done = _run(SUBMIT, *arguments, VENV=str(venv), **variables)
    assert done.stdout.split() == ["auth=token", "-m", "rsp_rl.runs.jobs", *expected]


def test_sbatch_directives() -> None:
    """Each is an option of sbatch, before the first command: Slurm ignores later ones."""
    known = {
        *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task"),
        *("exclusive", "time", "requeue", "open-mode", "output"),
    }
    lines = SBATCH.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(
        number for number, line in enumerate(lines) if line and not line.startswith("#")
    )
    assert directives
    assert max(directives) < first_command
    for number in directives:
        option = re.fullmatch(r"#SBATCH --([a-z-]+)(=\S+)?", lines[number])
        assert option, lines[number]
        assert option[1] in known


def test_slurm_starts_a_head_and_workers_and_submits(tmp_path: Path) -> None:
    """The real script between stand-ins of Slurm's commands."""
    repository = tmp_path / "repository"
    (repository / "scripts").mkdir(parents=True)
    for name in ("start_ray_cluster.sh", "submit_ray_job.sh"):
        (repository / "scripts" / name).write_text(
            f'echo "{name} $* NNODES=$NNODES GPUS=$GPUS_PER_NODE ${{#RAY_AUTH_TOKEN}}"\n'
        )
    stand_ins = {
        "scontrol": "echo node1; echo node2; echo node3",
        "hostname": "echo 10.0.0.1 172.17.0.1",
        "srun": 'while [[ $1 == --* ]]; do shift; done; "$@"',
        "sleep": ":",
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = _run(
        SBATCH,
        "recipes/a.sh",
        "x=1",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SLURM_SUBMIT_DIR=str(repository),
        SLURM_JOB_NUM_NODES="3",
        SLURM_GPUS_ON_NODE="8",
        SLURM_CPUS_PER_TASK="64",
        SLURM_JOB_NODELIST="node[1-3]",
    )
    assert done.returncode == 0, done.stderr
    size, run = "--num-cpus=64 --num-gpus=8 --block", "NNODES=3 GPUS=8 64"
    assert sorted(done.stdout.splitlines()) == [
        f"start_ray_cluster.sh head --node-ip-address=10.0.0.1 {size} {run}",
        f"start_ray_cluster.sh worker 10.0.0.1:6379 {size} {run}",
        f"submit_ray_job.sh recipes/a.sh x=1 {run}",
    ]


def test_rayjob_manifest() -> None:
    """The fields of KubeRay's RayJob (ray.io/v1) that a run depends on."""
    job = yaml.safe_load((SCRIPTS / "kuberay" / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    recipe = spec["entrypoint"].removeprefix("bash /workspace/rsp_rl/")
    assert (REPOSITORY / recipe).is_file()
    assert "WORKDIR /workspace/rsp_rl" in (SCRIPTS / "docker" / "Dockerfile").read_text()
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] > 0
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]
    containers = []
    for group in (cluster["headGroupSpec"], workers):
        assert isinstance(group["rayStartParams"], dict)
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        containers.append(container)
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {"runs": "/runs", "shm": "/dev/shm"}
        assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
    assert len({container["image"] for container in containers}) == 1
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert set(variables) <= set(setting_names(REPOSITORY / recipe))
    assert all(isinstance(value, str) for value in variables.values())
    assert int(variables["NNODES"]) == workers["replicas"]
    assert variables["GPUS_PER_NODE"] == containers[1]["resources"]["limits"]["nvidia.com/gpu"]
    assert variables["RUN_DIR"].startswith("/runs/")
