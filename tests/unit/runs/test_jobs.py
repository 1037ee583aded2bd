"""Recipes as Ray jobs: what is submitted, and when again. The cluster is the end-to-end test's."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from rsp_rl.runs import jobs
from rsp_rl.runs.jobs import (
    JobError,
    build_parser,
    exit_code,
    job_request,
    recipe_settings,
    should_retry,
)

REPOSITORY = Path(__file__).resolve().parents[3]
RECIPE = "recipes/dapo_rsp_qwen7b.sh"


def test_a_recipe_runs_where_it_lies_with_the_settings_of_the_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUN_DIR", "/shared/run 1")
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("HOSTNAME", "laptop")  # none of the recipe's
    override = "data.name='a b'"
    request = job_request(RECIPE, [override], upload=False)
    words = shlex.split(request["entrypoint"])
    assert words == ["cd", str(REPOSITORY), "&&", "bash", str(REPOSITORY / RECIPE), override]
    assert request["runtime_env"] == {"env_vars": {"RUN_DIR": "/shared/run 1", "NNODES": "2"}}


@pytest.mark.parametrize("recipe", sorted(path.name for path in REPOSITORY.glob("recipes/*.sh")))
def test_every_recipe_has_settings_to_forward(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = REPOSITORY / "recipes" / recipe
    # What trains by supervision counts in epochs, and takes or makes data in its own way.
    latent = "rsp_rl.cli latent" in path.read_text() or "rsp-rl latent" in path.read_text()
    settings = {"RUN_DIR"} if latent else {"RUN_DIR", "DATA_DIR", "STEPS"}
    for name in settings:
        monkeypatch.setenv(name, "1")
    assert set(recipe_settings(path)) >= settings


def test_settings_that_the_gpu_recipes_share_are_forwarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their defaults stand in the script that the recipe sources."""
    shared = {
        *("TEMPLATE", "DATA_DIR", "STEPS", "KEEP_CHECKPOINTS", "NNODES", "GPUS_PER_NODE"),
        *("GPU_MEMORY_GB", "GPU_MEMORY_UTILIZATION", "MAX_TOKENS_PER_GPU", "ROLLOUT_TP", "ULYSSES"),
        *("OFFLOAD", "LOW_MEMORY", "DRY_RUN"),
    }
    for name in {"MODEL", "RUN_DIR", *shared}:
        monkeypatch.setenv(name, f"/{name}")
    expected = {name: f"/{name}" for name in {"MODEL", "RUN_DIR", *shared}}
    assert recipe_settings(REPOSITORY / RECIPE) == expected


def test_an_uploaded_recipe_brings_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN_DIR", "/shared/run1")
    monkeypatch.setenv("DATA_DIR", "/shared/data")
    request = job_request(RECIPE, [], upload=True)
    assert request["entrypoint"] == f"bash {RECIPE}"
    assert request["runtime_env"]["working_dir"] == str(REPOSITORY)


def test_an_uploaded_recipe_must_not_write_into_its_temporary_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RUN_DIR", raising=False)
    with pytest.raises(JobError, match=r"RUN_DIR=: .*absolute path on the cluster's shared disk"):
        job_request(RECIPE, [], upload=True)


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(JobError, match=r"no recipe recipes/none\.sh; recipes/ has .*qwen7b\.sh"):
        job_request("recipes/none.sh", [], upload=False)


def test_only_files_of_the_repository_are_uploaded(tmp_path: Path) -> None:
    script = tmp_path / "mine.sh"
    script.write_text("echo")
    with pytest.raises(JobError, match=r"mine\.sh is not in"):
        job_request(str(script), [], upload=True)


def test_a_copied_recipe_runs_from_a_wheel_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "CHECKOUT", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPS", "3")
    Path("mine.sh").write_text("STEPS=${STEPS:-100}\n")
    request = job_request("mine.sh", ["a=b"], upload=False)
    words = shlex.split(request["entrypoint"])
    assert words == ["cd", str(tmp_path), "&&", "bash", str(tmp_path / "mine.sh"), "a=b"]
    assert request["runtime_env"] == {"env_vars": {"STEPS": "3"}}
    with pytest.raises(JobError, match=r"no recipe recipes/a\.sh here; `rsp-rl recipe NAME --copy"):
        job_request("recipes/a.sh", [], upload=False)
    with pytest.raises(JobError, match="installed from a wheel; install it on the cluster"):
        job_request("mine.sh", [], upload=True)


@pytest.mark.parametrize(
    ("status", "code", "expected", "retried"),
    [
        (JobStatus.SUCCEEDED, 0, 0, False),
        (JobStatus.FAILED, 1, 1, True),
        (JobStatus.FAILED, 2, 2, False),  # a bad setting: it would come again
        (JobStatus.FAILED, 137, 137, True),  # a shell whose child was killed
        (JobStatus.FAILED, -9, 137, True),
        (JobStatus.FAILED, None, 1, True),  # the head's node or the job's supervisor died
        (JobStatus.STOPPED, None, 1, False),
        (JobStatus.STOPPED, -15, 143, False),
    ],
)
def test_exit_codes(status: JobStatus, code: int | None, expected: int, retried: bool) -> None:
    job = JobDetails(
        type=JobType.SUBMISSION, status=status, entrypoint="bash", driver_exit_code=code
    )
    assert exit_code(job) == expected
    assert should_retry(job) == retried


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_RETRIES", "7")
    args = build_parser().parse_args(["submit", RECIPE, "rsp.length=0", "+memory=low"])
    assert args.overrides == ["rsp.length=0", "+memory=low"]
    assert args.max_retries == 7
    assert build_parser().parse_args(["status"]).job is None
