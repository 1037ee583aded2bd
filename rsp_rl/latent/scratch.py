"""A small model from nothing, and a tokenizer that knows a file's words: what a laptop can train.

The tokenizer is byte-level BPE learnt from the problems: each word of a made task is a token of its
own, and any other text can still be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.step_problems import MARK, StepProblem

ARCHITECTURES = ("gpt2", "llama", "qwen2")
END_OF_TEXT = "<|endoftext|>"
_VOCABULARY = 4096
"""At most; a made task runs out of merges far earlier."""

_BLOCKS_SCALE = 0.1
"""Of what the blocks add to the embeddings, beside Hugging Face's own initialisation: drowned in
what random blocks add, embeddings of such narrow models are hard to look anything up by."""

_INTO_STREAM = ("o_proj.weight", "down_proj.weight", "c_proj.weight")
"""Of the architectures' matrices those whose product is added to the residual stream."""


def build_tokenizer(problems: Sequence[StepProblem]) -> PreTrainedTokenizerBase:
    """A tokenizer of the words of problems, the same for the same problems."""
    texts = [
        "\n".join([problem.question, *problem.steps, f"{MARK} {problem.answer}"])
        for problem in problems
    ]
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        [texts], vocab_size=_VOCABULARY, min_frequency=2, show_progress=False
    )
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TEXT
    return tokenizer


def build_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    architecture: str = "gpt2",
    layers: int = 4,
    hidden_size: int = 256,
    heads: int = 4,
    context: int = 1024,
    seed: int = 0,
) -> PreTrainedModel:
    """A randomly initialised model for a tokenizer, without dropout.

    Args:
        tokenizer: Gives the vocabulary.
        architecture: One of `ARCHITECTURES`.
        layers: Transformer blocks.
        hidden_size: Width d; the feed-forward width is 4d.
        heads: Attention heads.
        context: Positions.
        seed: Of the weights; torch's global generator is left as it was.

    Raises:
        ConfigError: If the sizes do not go together.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(f"architecture {architecture!r} is none of {', '.join(ARCHITECTURES)}")
    if min(layers, hidden_size, heads, context) < 1 or hidden_size % (2 * heads):
        raise ConfigError(
            f"layers {layers}, hidden_size {hidden_size}, heads {heads}, context {context}: all "
            "are at least 1, and hidden_size is a multiple of 2 x heads"
        )
    eos = tokenizer.eos_token_id
    # Keeps the signal's size through layers of this width; 0.02 is meant for ten times as wide.
    common = {"vocab_size": len(tokenizer), "initializer_range": hidden_size**-0.5}
    common |= {
        "bos_token_id": eos,
        "eos_token_id": eos,
        "pad_token_id": eos,
        "dtype": torch.float32,
    }
    if architecture == "gpt2":
        config = GPT2Config(
            n_positions=context, n_embd=hidden_size, n_layer=layers, n_head=heads,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **common,
        )  # fmt: skip
        kind: type[PreTrainedModel] = GPT2LMHeadModel
    else:
        llama = architecture == "llama"
        config = (LlamaConfig if llama else Qwen2Config)(
            max_position_embeddings=context, hidden_size=hidden_size,
            intermediate_size=4 * hidden_size, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=heads, tie_word_embeddings=True, **common,
        )  # fmt: skip
        kind = LlamaForCausalLM if llama else Qwen2ForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(_INTO_STREAM):
                weight *= _BLOCKS_SCALE
    return model


def make_model(folder: Path, problems: Sequence[StepProblem], **sizes: object) -> Path:
    """Write such a model and its tokenizer; see `build_model`."""
    tokenizer = build_tokenizer(problems)
    model = build_model(tokenizer, **sizes)  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
