"""The tiny model: Qwen2's architecture at 0.3 million parameters, fp32."""

import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

CONTEXT_LENGTH = 1024
"""Positions of the model, far more than the task needs: room for long soft prompts."""


def build_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    hidden_size: int = 128,
    num_layers: int = 2,
    num_heads: int = 4,
    tie_word_embeddings: bool = False,
) -> Qwen2ForCausalLM:
    """Makes a randomly initialised model for the tokenizer.

    The vocabulary is exactly ``len(tokenizer)``: verl masks vLLM's logits beyond that and not the
    actor's, so that a larger table would make rollout and training disagree.

    Args:
        tokenizer: Gives the vocabulary size and the special token ids.
        seed: Of the initial weights; torch's global generator is left as it was.
        hidden_size: Model width d; the feed-forward width is 2d.
        num_layers: Transformer blocks.
        num_heads: Attention heads, over half as many key-value heads (as Qwen2.5 groups them).
        tie_word_embeddings: Use the input embedding table as the output layer as well.

    Raises:
        ValueError: The sizes are not positive or do not divide as Qwen2 needs.
    """
    if min(hidden_size, num_layers, num_heads) < 1:
        raise ValueError(
            f"hidden_size {hidden_size}, num_layers {num_layers} and num_heads {num_heads} "
            "must all be at least 1"
        )
    if hidden_size % (2 * num_heads):
        raise ValueError(
            f"hidden_size {hidden_size} must be a multiple of 2 x num_heads = {2 * num_heads}: "
            "rotary embeddings need heads of an even width"
        )
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=max(1, num_heads // 2),
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=tie_word_embeddings,
        # Keeps the signal's size through layers of this width. Qwen2's 0.02 is meant for models ten
        # times as wide: here attention would start out nearly uniform and take long to learn.
        initializer_range=hidden_size**-0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
