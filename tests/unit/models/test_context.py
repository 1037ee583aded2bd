"""The longest sequence of a model is what vLLM gives it."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Gemma3Config, GPT2Config, LlamaConfig, Phi3Config, PretrainedConfig

from rsp_rl.models.context import context_of

YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 10000.0,
}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 10000.0,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "rope_theta": 10000.0,
}


def _llama(**settings: Any) -> PretrainedConfig:
    size = {"hidden_size": 16, "num_attention_heads": 2, "vocab_size": 50}
    return LlamaConfig(**size, max_position_embeddings=64, **settings)


CONFIGS = {
    "plain": (_llama(), 64),
    "YaRN": (_llama(rope_parameters=YARN), 128),
    "linear": (_llama(rope_parameters=LINEAR), 128),
    "Llama 3": (_llama(rope_parameters=LLAMA_3), 64),
    "LongRoPE": (
        Phi3Config(
            hidden_size=16,
            num_attention_heads=2,
            vocab_size=50,
            pad_token_id=0,
            max_position_embeddings=64,
            original_max_position_embeddings=32,
            rope_parameters=LONG,
        ),
        32,
    ),
    "GPT-2": (GPT2Config(n_positions=64), 64),
    "text and images": (Gemma3Config(text_config={"max_position_embeddings": 64}), 64),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_context_is_vllms(name: str) -> None:
    from vllm.config.model import _get_and_verify_max_len
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    config, expected = CONFIGS[name]
    assert context_of(config) == expected

    class Derived:
        """As much of vLLM's as its function looks at."""

        text = config.get_text_config()
        derived_max_model_len_and_key = ModelArchConfigConvertorBase(
            config, text
        ).derive_max_model_len_and_key()

    found = _get_and_verify_max_len(Derived.text, Derived, None, None, False, None)
    assert found == expected


def test_a_config_that_does_not_say() -> None:
    assert context_of(PretrainedConfig()) is None
