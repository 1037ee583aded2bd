"""`+rollout=fp8`: verl's fp8 rollout, corrected for, with the guard's bound for it."""

from __future__ import annotations

import inspect

import pytest
from omegaconf import DictConfig
from transformers import Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.models.shape import ModelShape, model_shape
from rsp_rl.training import dry_run
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preflight import FP8_BLOCK, check_guard_support, check_quantization

QWEN_7B, QWEN_15B = "Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-Math-1.5B"
TWO_RANKS, FOUR_RANKS = (
    f"actor_rollout_ref.rollout.tensor_model_parallel_size={ranks}" for ranks in (2, 4)
)


def _config(*overrides: str) -> DictConfig:
    return compose_config("dapo_rsp", ["+machine=gpu", "+rollout=fp8", *overrides])


def test_what_the_group_sets() -> None:
    config = _config()
    rollout, correction = config.actor_rollout_ref.rollout, config.algorithm.rollout_correction
    assert (rollout.quantization, rollout.logprobs_mode) == ("fp8", "processed_logprobs")
    assert (correction.rollout_is, correction.rollout_is_threshold) == ("token", 2.0)
    # Between twice the gap that is expected and that of a forgotten soft prompt.
    assert RspOptions.from_config(config.rsp).guard.max_mean_gap == 0.2
    check_guard_support(config)


def test_another_correction_is_chosen_without_a_plus() -> None:
    assert _config("correction=k3_rs").algorithm.rollout_correction.rollout_rs == "seq_mean_k3"
    with pytest.raises(ConfigError, match="Multiple values for correction"):
        _config("+correction=k3_rs")


def test_verl_knows_it_by_this_name_and_block() -> None:
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

    source = inspect.getsource(vLLMHttpServer._apply_quantization)
    assert 'quantization == "fp8"' in source
    assert f'"weight_block_size": [{FP8_BLOCK}, {FP8_BLOCK}]' in source


@pytest.mark.parametrize("model", [QWEN_7B, QWEN_15B, "meta-llama/Llama-3.1-8B-Instruct"])
def test_the_recipes_models_are_whole_blocks(model: str) -> None:
    check_quantization(_config(), model_shape(model))
    check_quantization(_config(TWO_RANKS), model_shape(model))


def _qwen(**changes: int) -> Qwen2Config:
    sizes = {"hidden_size": 1536, "num_attention_heads": 12, "num_key_value_heads": 2}
    return Qwen2Config(**{**sizes, "intermediate_size": 8960, **changes})


@pytest.mark.parametrize("model", [model_shape(QWEN_15B), _qwen()])
def test_half_a_block_is_refused(model: ModelShape | Qwen2Config) -> None:
    """8,960 / 4 = 17.5 blocks; the 2 key heads are repeated."""
    with pytest.raises(ConfigError, match=r"feed-forwards .* 2240 wide on each of .*_size=4 ranks"):
        check_quantization(_config(FOUR_RANKS), model)


def test_narrow_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="keys of this model are 64 wide"):
        check_quantization(_config(), _qwen(num_attention_heads=24, num_key_value_heads=1))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ("trainer.device=cpu", "is for GPUs"),
        ("actor_rollout_ref.rollout.load_format=safetensors", "set it to dummy"),
        ("algorithm.rollout_correction.rollout_is=null", "nothing corrects for it"),
    ],
)
def test_what_could_not_be_right_is_refused(change: str, cause: str) -> None:
    with pytest.raises(ConfigError, match=f"rollout.quantization=fp8 .*{cause}"):
        check_quantization(_config(change), model_shape(QWEN_7B))
    plain = compose_config("dapo_rsp", ["+machine=gpu", change])
    check_quantization(plain, model_shape(QWEN_7B))


def test_the_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    model = f"actor_rollout_ref.model.path={QWEN_7B}"
    run = ["+machine=gpu", "+rollout=fp8", model, "trainer.n_gpus_per_node=4"]
    assert dry_run.main(run) == 0
    printed = capsys.readouterr().out
    assert "actor_rollout_ref.rollout.quantization: fp8" in printed
    assert "rollout, vLLM weights: 8.1" in printed  # 14.2 in bf16
