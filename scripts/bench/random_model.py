"""Random Qwen2 models of any width and depth, with a tokenizer; they cost what trained ones do."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rsp_rl.tiny.tokenizer import build_tokenizer

_HEAD = 64
_CONTEXT = 4096


def save_random_model(folder: Path, hidden_size: int, layers: int) -> Path:
    """Save one in float32; its feed-forward layers are twice as wide as the model.

    Args:
        folder: Where to.
        hidden_size: d, a multiple of 64.
        layers: Blocks.
    """
    tokenizer = build_tokenizer(model_max_length=_CONTEXT)
    heads = hidden_size // _HEAD
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2 if heads % 2 == 0 else 1,
        max_position_embeddings=_CONTEXT,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
