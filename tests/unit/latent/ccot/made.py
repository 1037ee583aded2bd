"""Tiny models of three kinds, with adapters that do something, and problems for them."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
)

from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.problem_tokens import ProblemTokens

VOCABULARY, OPENING, END = 40, 5, 1

_SHAPE = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": END}
_LLAMA = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    "initializer_range": 0.25,
}
CONFIGS = {
    "gpt2": GPT2Config(
        **_SHAPE, n_embd=16, n_layer=4, n_head=4, n_positions=64, initializer_range=0.2
    ),
    "llama": LlamaConfig(**_SHAPE, **_LLAMA),
    "qwen2": Qwen2Config(**_SHAPE, **_LLAMA),
}


def make_model(kind: str = "qwen2", dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Random weights, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return AutoModelForCausalLM.from_config(CONFIGS[kind]).to(dtype).eval()


def make_adapters(
    kind: str = "qwen2", dtype: torch.dtype = torch.float64, *, moved: bool = True
) -> Adapters:
    """phi and psi of unequal ranks; where they are `moved`, both do something."""
    adapters = Adapters(
        make_model(kind, dtype), generator_rank=3, decoder_rank=2, scale=2.0, seed=0
    )
    if moved:
        generator = torch.Generator().manual_seed(1)
        for name in ("phi", "psi"):
            for parameter in adapters.parameters(name):
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data = (0.3 * noise).to(parameter.dtype)
    return adapters


def make_problems(count: int = 5, seed: int = 0) -> list[ProblemTokens]:
    """Of unequal lengths, two steps each."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high + 1, (1,), generator=generator))
        return tuple(torch.randint(6, VOCABULARY, (length,), generator=generator).tolist())

    return [
        ProblemTokens(tokens(2, 6), (tokens(1, 6), tokens(1, 6)), (OPENING, *tokens(1, 3), END))
        for _ in range(count)
    ]
