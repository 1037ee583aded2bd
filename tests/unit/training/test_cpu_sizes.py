"""What a CPU run takes from model, data and machine, and what is left as the user has it."""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import DictConfig, OmegaConf
from transformers import LlamaConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.shape import kv_numbers_per_token
from rsp_rl.tiny.tokenizer import build_tokenizer
from rsp_rl.training.configs import compose_config
from rsp_rl.training.cpu_sizes import (
    KV_CACHE,
    THREADS,
    fit_kv_cache,
    fit_prompt_length,
    fit_threads,
    threads_of,
)

#: SmolLM2-135M's.
SMOLLM2 = LlamaConfig(
    hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3
)
VARIABLES = "ray_kwargs.ray_init.runtime_env.env_vars"
ROLLOUT = "actor_rollout_ref.rollout"


@cache
def _composed() -> DictConfig:
    return compose_config("real_cpu")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (KV_CACHE, THREADS):
        monkeypatch.delenv(name, raising=False)


def config(**changes: object) -> DictConfig:
    made = copy.deepcopy(_composed())
    for key, value in ({f"{ROLLOUT}.prompt_length": 80} | changes).items():
        OmegaConf.update(made, key, value, force_add=True)
    return made


def variable(made: DictConfig, name: str) -> str | None:
    return OmegaConf.select(made, VARIABLES).get(name)


def test_keys_and_values_of_a_token() -> None:
    assert kv_numbers_per_token(SMOLLM2) == 2 * 30 * 3 * 64
    without_groups = LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    assert kv_numbers_per_token(without_groups) == 2 * 2 * 64


@pytest.mark.parametrize(
    ("changes", "gib"),
    [
        # 64 rollouts of one block of 128 tokens, 46,080 bytes a token: 0.35 GiB.
        ({}, "1"),
        ({"data.train_batch_size": 128, f"{ROLLOUT}.response_length": 2000}, "24"),
        (
            {
                "data.train_batch_size": 128,
                f"{ROLLOUT}.response_length": 2000,
                f"{ROLLOUT}.dtype": "bfloat16",
            },
            "12",
        ),
    ],
)
def test_the_cache_holds_a_steps_rollouts(changes: dict, gib: str) -> None:
    made = config(**changes)
    fit_kv_cache(made, SMOLLM2)
    assert variable(made, KV_CACHE) == gib


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = config(**{f"{VARIABLES}.{KV_CACHE}": "7", f"{VARIABLES}.{THREADS}": "3"})
    fit_kv_cache(made, SMOLLM2)
    fit_threads(made, tmp_path)
    assert (variable(made, KV_CACHE), threads_of(made)) == ("7", 3)

    monkeypatch.setenv(KV_CACHE, "5")
    monkeypatch.setenv(THREADS, "4")
    made = config()
    fit_kv_cache(made, SMOLLM2)
    fit_threads(made, tmp_path)
    assert variable(made, KV_CACHE) is variable(made, THREADS) is None
    assert threads_of(made) == 4


@pytest.mark.parametrize(
    ("mebibytes", "ranks", "threads"), [(1, 1, None), (40, 1, "6"), (40, 2, "3"), (40, 8, "1")]
)
def test_threads(
    mebibytes: int,
    ranks: int,
    threads: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6))
    with (tmp_path / "model.safetensors").open("wb") as weights:
        weights.truncate(mebibytes << 20)
    made = config(**{"trainer.n_gpus_per_node": ranks})
    fit_threads(made, tmp_path)
    assert variable(made, THREADS) == threads


def _rows(*contents: str) -> list[SimpleNamespace]:
    rows = [
        (Path("f"), i, {"prompt": [{"role": "user", "content": c}]}) for i, c in enumerate(contents)
    ]
    return [SimpleNamespace(rows=lambda: iter(rows))]


def test_the_longest_prompt_is_the_datas() -> None:
    tokenizer = build_tokenizer(128)
    tools = SimpleNamespace(counted=None)
    made = config()
    fit_prompt_length(made, tokenizer, _rows("Compute 1+2.", "Compute 1+2-3+4."), tools)
    longest = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Compute 1+2-3+4."}],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert made.data.max_prompt_length == len(longest)

    fit_prompt_length(made, tokenizer, _rows("Compute 1."), tools)
    assert made.data.max_prompt_length == len(longest)  # it is set now


def test_data_that_is_not_read_here_has_no_length() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_prompt_length is not set"):
        fit_prompt_length(config(), build_tokenizer(128), [], SimpleNamespace(counted=None))
