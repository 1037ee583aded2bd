"""What is reported as broken in vLLM, held against the vLLM that is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.vllm_faults import check_lora, wraps_embedding

LLAMA = LlamaConfig(architectures=["LlamaForCausalLM"])
QWEN2 = Qwen2Config(architectures=["Qwen2ForCausalLM"])


@pytest.mark.parametrize(
    "architecture",
    ["LlamaForCausalLM", "Qwen3ForCausalLM", "InternLM3ForCausalLM", "Phi3ForCausalLM"],
)
def test_models_whose_embedding_lora_wraps(architecture: str) -> None:
    """The class's own layer, another name for it, and a base class's."""
    assert wraps_embedding(architecture)


@pytest.mark.parametrize(
    "architecture", ["Qwen2ForCausalLM", "MistralForCausalLM", "NoSuchModel", "", "(", "Tiny.*"]
)
def test_models_whose_embedding_it_leaves_alone(architecture: str) -> None:
    """Mistral's class empties what it would inherit of Llama's."""
    assert not wraps_embedding(architecture)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM"])
def test_the_source_says_what_the_class_has(architecture: str) -> None:
    """Dies when vLLM names its registry or its layers otherwise."""
    from vllm.model_executor.models import ModelRegistry

    loaded = ModelRegistry._try_load_model_cls(architecture)
    assert bool(loaded.embedding_modules) == wraps_embedding(architecture)


def test_the_fault_is_still_there() -> None:
    """vLLM #51122: tokens alone are embedded, without the rows between them. Gone: so may we."""
    import vllm.v1.worker.gpu_model_runner as runner

    source = Path(runner.__file__).read_text()
    assert "token_ids = self.input_ids.gpu[token_ids_idx]" in source


@pytest.mark.parametrize(
    ("model", "lora", "embeds", "refused"),
    [
        (LLAMA, {"lora_rank": 8}, True, True),
        (LLAMA, {"lora_rank": 8, "lora": {"merge": False}}, True, True),
        (LLAMA, {"lora_rank": 8, "lora": {"merge": True}}, True, False),
        (LLAMA, {"lora_rank": 8}, None, False),
        (LLAMA, {"lora_rank": 0, "lora": {"rank": 0}}, True, False),
        (QWEN2, {"lora_rank": 8}, True, False),
        (PretrainedConfig(), {"lora_rank": 8}, True, False),
    ],
)
def test_lora_with_soft_prompts(
    model: PretrainedConfig, lora: dict, embeds: bool | None, refused: bool
) -> None:
    engine = {"vllm": {"enable_prompt_embeds": embeds}}
    run = {"actor_rollout_ref": {"model": lora, "rollout": {"engine_kwargs": engine}}}
    if refused:
        with pytest.raises(ConfigError, match=r"LoRA with soft prompts on Llama.*#51122"):
            check_lora(OmegaConf.create(run), model)
    else:
        check_lora(OmegaConf.create(run), model)
