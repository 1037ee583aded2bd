"""A prompt for vLLM: the L soft prompt rows as embeddings, all other tokens as ids.

The mixed prompt (vLLM's `EmbedsPrompt` with `prompt_is_token_ids`) lets vLLM embed the real tokens
with its *current* weights, and hash the embedding bytes into its prefix-cache blocks: the group's
rollouts share the question's blocks and never those of the soft prompt.
"""

from __future__ import annotations

import torch
from vllm.inputs import EmbedsPrompt

from rsp_rl.soft_prompt import SoftPromptRecord


def mixed_prompt(token_ids: list[int], record: SoftPromptRecord, hidden_size: int) -> EmbedsPrompt:
    """A prompt of token ids with H at the record's positions.

    Args:
        token_ids: Prompt tokens, placeholders included, [T].
        record: The rollout's soft prompt.
        hidden_size: d.

    Raises:
        ValueError: If the tokens at the record's positions are not placeholders: the prompt was
            cut or changed after the soft prompt was placed.
    """
    rows = slice(record.start, record.start + record.length)
    if token_ids[rows] != [record.placeholder_id] * record.length:
        raise ValueError(
            f"tokens {record.start} to {record.start + record.length} of a prompt of "
            f"{len(token_ids)} are not the soft prompt's placeholders; was the prompt truncated?"
        )
    soft_prompt = record.draw(hidden_size)
    embeds = torch.zeros(len(token_ids), hidden_size, dtype=soft_prompt.dtype)
    embeds[rows] = soft_prompt
    is_token = [True] * len(token_ids)
    is_token[rows] = [False] * record.length
    return EmbedsPrompt(
        prompt_embeds=embeds, prompt_token_ids=token_ids, prompt_is_token_ids=is_token
    )
