"""A Ray job and its run may name the same environment variables."""

from __future__ import annotations

import json
import os

import pytest
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.runtime_env.runtime_env import _merge_runtime_env  # what `ray.init` does in a job

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.job_environment import JOB_CONFIG, OVERRIDE, give_way_to_job, make_texts


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())


def in_job(**variables: str) -> dict:
    job = {"env_vars": variables}
    os.environ[JOB_CONFIG] = json.dumps({"runtime_env": job, "metadata": {}})
    return job


def test_the_jobs_value_wins_and_is_said_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    job = in_job(VERL_FILE_LOGGER_PATH="/job/metrics", VLLM_CPU_KVCACHE_SPACE="4", ONLY_JOBS="1")
    run = {"VERL_FILE_LOGGER_PATH": "/run/metrics", "VLLM_CPU_KVCACHE_SPACE": "1", "OURS": "2"}
    give_way_to_job(run)
    merged = _merge_runtime_env(job, {"env_vars": run}, override=os.environ[OVERRIDE] == "1")
    assert merged["env_vars"] == {
        "VERL_FILE_LOGGER_PATH": "/job/metrics",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "ONLY_JOBS": "1",
        "OURS": "2",
    }
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "4"
    (line,) = caplog.messages
    assert "VERL_FILE_LOGGER_PATH=/job/metrics (the run's: /run/metrics)" in line
    assert "OURS" not in line


def test_what_verl_hands_on_of_the_jobs_is_merged_too() -> None:
    """It puts some of the process's variables, which are the job's, into what it gives Ray."""
    job = in_job(PYTHONHASHSEED="7")
    run: dict[str, str] = {}
    give_way_to_job(run)
    handed_on = {"env_vars": {"PYTHONHASHSEED": "7"}}
    merged = _merge_runtime_env(job, handed_on, override=os.environ[OVERRIDE] == "1")
    assert merged["env_vars"] == {"PYTHONHASHSEED": "7"}


@pytest.mark.parametrize("job", [None, "{}", '{"runtime_env": null}', '{"runtime_env": {}}'])
def test_without_variables_of_a_job_nothing_changes(
    job: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    os.environ.pop(JOB_CONFIG, None)
    os.environ.pop(OVERRIDE, None)
    if job is not None:
        os.environ[JOB_CONFIG] = job
    run = {"A": "1"}
    give_way_to_job(run)
    assert run == {"A": "1"}
    assert not caplog.messages
    assert (OVERRIDE in os.environ) == (job is not None)


def test_the_same_value_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    in_job(A="1")
    run = {"A": "1"}
    give_way_to_job(run)
    assert run == {}
    assert not caplog.messages


def test_secrets_are_named_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    in_job(WANDB_API_KEY="abc")
    give_way_to_job({"WANDB_API_KEY": "def"})
    (line,) = caplog.messages
    assert "WANDB_API_KEY" in line
    assert "abc" not in line
    assert "def" not in line


def test_ray_still_names_it_so() -> None:
    assert RAY_JOB_CONFIG_JSON_ENV_VAR == JOB_CONFIG


def test_numbers_are_written_as_the_texts_that_ray_takes() -> None:
    """Hydra reads `+ray_kwargs.ray_init.runtime_env.env_vars.A=1` as a number."""
    variables = {"A": 1, "B": 0.5, "C": True, "D": "x"}
    make_texts(variables)
    assert variables == {"A": "1", "B": "0.5", "C": "True", "D": "x"}
    with pytest.raises(ConfigError, match=r"env_vars\.E=None is no text; quote it"):
        make_texts({"E": None})
