"""vLLM's two model runners: which one serves soft prompts, and what the second holds."""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path

import pytest
from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.injection import model_runner
from rsp_rl.injection.model_runner import VARIABLE, WORKER, installed, v2_takes_prompt_embeds
from rsp_rl.training import dry_run
from rsp_rl.training.configs import compose_config
from rsp_rl.training.model_runner import (
    check_held_prompts,
    held_prompt_bytes,
    serves_with_v2,
    smallest_gpu_bytes,
)
from rsp_rl.training.preflight import check_adds

ROLLOUT = "actor_rollout_ref.rollout"
IN_RAY = f"+ray_kwargs.ray_init.runtime_env.env_vars.{VARIABLE}"
LENGTH = f"{ROLLOUT}.prompt_length=1000"
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def _old_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As up to 0.28.0."""
    monkeypatch.setattr(model_runner, "v2_takes_prompt_embeds", lambda: False)


@pytest.fixture
def _new_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from 0.29.0 on."""
    monkeypatch.setattr(model_runner, "v2_takes_prompt_embeds", lambda: True)


def _config(*overrides: str) -> DictConfig:
    return compose_config("dapo_rsp", ["+machine=gpu", LENGTH, *overrides])


def test_the_file_says_what_vllm_itself_says() -> None:
    """Fails when vLLM moves the file, or takes prompt embeddings without it."""
    from vllm.config import VllmConfig

    unsupported = inspect.getsource(VllmConfig._get_v2_model_runner_unsupported_features)
    assert v2_takes_prompt_embeds() == ("prompt embeds" not in unsupported)
    assert VARIABLE in inspect.getsource(inspect.getmodule(inspect.unwrap(VllmConfig)))


@pytest.mark.usefixtures("_old_vllm")
def test_without_the_file_v1_serves() -> None:
    assert not serves_with_v2(_config())
    assert not serves_with_v2(_config(f'{IN_RAY}="0"'))
    check_held_prompts(_config(f"{ROLLOUT}.max_num_seqs=1000000"), 3584, gpu_bytes=GIB)


@pytest.mark.usefixtures("_old_vllm")
def test_v2_that_takes_no_embeddings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    there = re.escape(installed())
    with pytest.raises(ConfigError, match=rf"VLLM_USE_V2_MODEL_RUNNER=1.*{there}.*unset it"):
        serves_with_v2(_config())
    assert not serves_with_v2(_config("rsp.length=0"))  # plain prompts: vLLM's own affair
    assert not serves_with_v2(_config(f'{IN_RAY}="0"'))  # what vLLM's processes will see


def test_what_is_neither_0_nor_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="'true' is neither 0 nor 1"):
        serves_with_v2(_config(f'{IN_RAY}="true"'))


@pytest.mark.usefixtures("_new_vllm")
def test_a_new_vllm_serves_with_v2_unless_told_otherwise() -> None:
    assert serves_with_v2(_config())
    assert not serves_with_v2(_config(f'{IN_RAY}="0"'))
    assert not serves_with_v2(_config("rsp.length=0"))
    assert serves_with_v2(
        _config("rsp.length=0", f"{ROLLOUT}.engine_kwargs.vllm.enable_prompt_embeds=true")
    )


NOISE = ("rsp.law=question_noise", "rsp.length=0")


def test_noise_on_the_question_needs_our_worker() -> None:
    def check(*overrides: str) -> None:
        config = _config(*overrides)
        check_adds(config, RspOptions.from_config(config.rsp))

    check(*NOISE)
    check(*NOISE, "rsp.scale=0")
    check()
    worker = f"+{ROLLOUT}.engine_kwargs.vllm.worker_cls"
    with pytest.raises(ConfigError, match=r"worker_cls=auto: .* needs .*SoftPromptWorker"):
        check(*NOISE, f'{IN_RAY}="0"', f"{worker}=auto")
    check(*NOISE, f'{IN_RAY}="0"', f"{worker}={WORKER}")
    embeds = f"{ROLLOUT}.engine_kwargs.vllm.enable_prompt_embeds=False"
    with pytest.raises(ConfigError, match=r"enable_prompt_embeds=False: .*question_noise needs it"):
        check(*NOISE, f'{IN_RAY}="0"', embeds)
    check(*NOISE, "rsp.scale=0", embeds)


def test_held_prompts_by_hand() -> None:
    many = f"{ROLLOUT}.max_num_seqs=1024"
    assert held_prompt_bytes(_config(many), 3584) == 1024 * 1000 * 3584 * 2
    wide = _config(many, f"{ROLLOUT}.dtype=float32")
    assert held_prompt_bytes(wide, 3584) == 1024 * 1000 * 3584 * 4
    # Later turns of a tool loop come with the earlier ones' answers.
    tools = _config(many, f"{ROLLOUT}.agent.default_agent_loop=tool_agent")
    assert held_prompt_bytes(tools, 3584) == 1024 * (1000 + 2048) * 3584 * 2


@pytest.mark.usefixtures("_new_vllm")
def test_prompts_that_do_not_fit_beside_vllms_share() -> None:
    """6.8 GiB of 80: 5% are 4."""
    share = f"{ROLLOUT}.gpu_memory_utilization"
    many = f"{ROLLOUT}.max_num_seqs=1024"
    check_held_prompts(_config(many, f"{share}=0.9"), 3584, gpu_bytes=80 * GIB)
    with pytest.raises(
        ConfigError, match=r"max_num_seqs=1024 requests.*6\.8 GiB.*leaves 4\.0"
    ) as e:
        check_held_prompts(_config(many, f"{share}=0.95"), 3584, gpu_bytes=80 * GIB)
    assert "at most 599," in str(e.value)
    assert VARIABLE in str(e.value)
    fits = f"{ROLLOUT}.max_num_seqs=599"
    check_held_prompts(_config(fits, f"{share}=0.95"), 3584, gpu_bytes=80 * GIB)


@pytest.mark.usefixtures("_new_vllm")
@pytest.mark.parametrize("none", [NOISE, ("rsp.length=0", "law=multiplex")], ids=" ".join)
def test_what_v2_gets_as_tokens_it_does_not_hold(none: tuple[str, ...]) -> None:
    embeds = f"{ROLLOUT}.engine_kwargs.vllm.enable_prompt_embeds=true"
    config = _config(*none, embeds, f"{ROLLOUT}.max_num_seqs=1000000")
    assert serves_with_v2(config)
    assert held_prompt_bytes(config, 3584) == 0
    check_held_prompts(config, 3584, gpu_bytes=GIB)


@pytest.mark.usefixtures("_new_vllm")
def test_without_a_gpu_in_sight_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_held_prompts(_config(), 3584, gpu_bytes=None)
    [record] = caplog.records
    assert "no GPU is seen" in record.getMessage()


@pytest.mark.usefixtures("_new_vllm")
def test_the_dry_run_counts_them(capsys: pytest.CaptureFixture[str]) -> None:
    model = "actor_rollout_ref.model.path=Qwen/Qwen2.5-Math-7B"
    gpus = ["+machine=gpu", model, "trainer.n_gpus_per_node=4"]
    assert dry_run.main([*gpus, f"{ROLLOUT}.max_num_seqs=1024"]) == 0
    with_v2 = capsys.readouterr().out
    assert "rollout, prompts as embeddings: 14.0" in with_v2
    assert dry_run.main([*gpus, f'{IN_RAY}="0"']) == 0
    assert "prompts as embeddings" not in capsys.readouterr().out
    assert dry_run.main([*gpus, f"{ROLLOUT}.max_num_seqs=4096"]) == 1
    assert "max_num_seqs to at most" in capsys.readouterr().err


def test_the_smallest_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smallest_gpu_bytes() is None
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 81559\necho 40960\n")
    listing.chmod(0o755)
    assert smallest_gpu_bytes() == 40960 << 20
    listing.write_text("#!/bin/sh\necho 'failed: error 9'\nexit 9\n")
    assert smallest_gpu_bytes() is None
