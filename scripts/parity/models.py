"""Models that make a parity check sharp: tiny, random, and sensitive to every input."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from rsp_rl.tiny import make_tiny_model

#: Of the adapters of `make_adapter`, as verl's `lora_rank` and `lora_alpha`.
LORA_RANK, LORA_ALPHA = 8, 16


@dataclass(frozen=True)
class Policy:
    """One policy as both sides load it.

    Attributes:
        rollout_model: What vLLM loads; with LoRA the adapters are merged into it.
        actor_model: What the actor loads.
        adapter: peft folder that the actor puts on top; None without LoRA.
    """

    rollout_model: Path
    actor_model: Path
    adapter: Path | None = None

    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        """The actor's policy in plain torch, adapters trainable and all else frozen with LoRA."""
        model = AutoModelForCausalLM.from_pretrained(self.actor_model, dtype=dtype)
        if self.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self.adapter, is_trainable=True).to(dtype)
        return model


def make_random_model(folder: Path, *, hidden_size: int = 32, tied: bool = False) -> Path:
    """A tiny random model in which attention depends on its inputs, so that soft prompts matter."""
    make_tiny_model(folder, seed=3, steps=0, hidden_size=hidden_size, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.2 if "embed" in name else 0.1, generator=generator)
    model.save_pretrained(folder)
    return folder


def make_adapter(model_folder: Path, adapter: Path, merged: Path) -> None:
    """LoRA adapters on all linear layers that already do something, and the model with them merged.

    Args:
        model_folder: The base model.
        adapter: Where the peft adapter goes.
        merged: Where the merged model goes, with the base model's tokenizer.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        target_modules="all-linear",
    )
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05, generator=generator)
    model.save_pretrained(adapter)
    model.merge_and_unload().save_pretrained(merged)
    for pattern in ("*.jinja", "tokenizer*"):
        for file in model_folder.glob(pattern):
            shutil.copy(file, merged)


def make_policies(folder: Path, model: Path | None = None) -> dict[bool, Policy]:
    """The policies of the matrix by whether they have LoRA adapters.

    Args:
        folder: Where they are made, unless they are there already.
        model: A Hugging Face folder to use instead of the random model.
    """
    if model is None:
        model = folder / "model"
        if not (model / "config.json").is_file():
            # Wide enough for vLLM's kernels, and for two tensor-parallel ranks.
            make_random_model(model, hidden_size=128)
    adapter, merged = folder / "adapter", folder / "merged"
    if not (merged / "tokenizer_config.json").is_file():  # written last
        make_adapter(model, adapter, merged)
    return {False: Policy(model, model), True: Policy(merged, model, adapter)}
