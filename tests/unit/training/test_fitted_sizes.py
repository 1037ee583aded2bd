"""Sizes that are made to fit a model, and said."""

from __future__ import annotations

import copy
import logging
from functools import cache
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.configs import compose_config
from rsp_rl.training.fitted_sizes import fit_bucket, fit_context

ROLLOUT = "actor_rollout_ref.rollout"


@cache
def _composed() -> DictConfig:
    return compose_config("tiny_cpu")


def config(changes: dict[str, object]) -> DictConfig:
    made = copy.deepcopy(_composed())
    for key, value in changes.items():
        OmegaConf.update(made, key, value, force_add=True)
    return made


# vLLM's batches.


@pytest.mark.parametrize(
    ("changes", "context", "batch"),
    [
        ({}, 112, 4096),  # 64 + 8 and 40 tokens
        ({f"{ROLLOUT}.prompt_length": 8000}, 8040, 8040),
        ({f"{ROLLOUT}.max_model_len": 6000}, 6000, 6000),
        ({f"{ROLLOUT}.enable_chunked_prefill": True}, None, 4096),
        (
            {f"{ROLLOUT}.enable_chunked_prefill": True, f"{ROLLOUT}.max_model_len": 6000},
            6000,
            4096,
        ),
    ],
)
def test_a_context_that_comes_at_once_fits(
    changes: dict, context: int | None, batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    made = config({f"{ROLLOUT}.prompt_length": 72} | changes)
    with caplog.at_level(logging.WARNING):
        fit_context(made)
    rollout = made.actor_rollout_ref.rollout
    assert (rollout.max_model_len, rollout.max_num_batched_tokens) == (context, batch)
    assert ("raised to that" in caplog.text) == (batch != 4096)


def test_a_batch_below_a_token_a_sequence_is_refused() -> None:
    changes = {f"{ROLLOUT}.prompt_length": 72, f"{ROLLOUT}.max_num_batched_tokens": 200}
    with pytest.raises(ConfigError, match="max_num_batched_tokens=200 is below max_num_seqs=256"):
        fit_context(config(changes))


# The bucket that weights are sent in.


@pytest.mark.parametrize(
    ("device", "bucket", "becomes"), [("cpu", 64, 64), ("cpu", 3, 5), ("cuda", 3, 3)]
)
def test_the_bucket_holds_the_largest_weight(
    tmp_path: Path, device: str, bucket: int, becomes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """4.2 MiB in fp32; half of it in the file. Of a GPU's verl sends the weight by itself."""
    table = torch.zeros(1100, 1000, dtype=torch.bfloat16)
    save_file({"norm": torch.zeros(3)}, tmp_path / "model-1.safetensors")
    save_file({"model.embed_tokens.weight": table}, tmp_path / "model-2.safetensors")
    name = f"{ROLLOUT}.checkpoint_engine.update_weights_bucket_megabytes"
    made = config({name: bucket, "trainer.device": device})
    fit_bucket(made, tmp_path)
    assert OmegaConf.select(made, name) == becomes
    assert ("does not hold model.embed_tokens.weight" in caplog.text) == (becomes != bucket)
