"""OPT-350m's kind of model: a narrow embedding table, projected to the hidden size."""

from __future__ import annotations

from pathlib import Path

from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerBase


def make_projected_model(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Write a random one: embeddings 16 wide, hidden states 32.

    Args:
        folder: Where it goes.
        tokenizer: Whose tokens it has, and which is written beside it.
    """
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    OPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
