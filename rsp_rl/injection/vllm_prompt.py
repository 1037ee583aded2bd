"""A prompt for vLLM: the L soft prompt rows as embeddings, all other tokens as ids.

The mixed prompt (vLLM's `EmbedsPrompt` with `prompt_is_token_ids`) lets vLLM embed the real tokens
with its *current* weights, and hash the embedding bytes into its prefix-cache blocks: the group's
rollouts share the question's blocks and never those of the soft prompt.

vLLM wants a row for every token, though L of them count: 29 MB a request for 2,048 tokens of a 7B
model, made, sent, hashed and held until the request ends. `record_prompt` puts the rollout's record
into the rows' place, 72 bytes a token, which vLLM carries and hashes in the same way; workers that
know records (`rsp_rl.injection.vllm_worker`) draw H themselves. `mixed_prompt` works with any
worker and is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm.inputs import EmbedsPrompt

from rsp_rl.draws.record import RECORD_SIZE, SoftPromptRecord

if TYPE_CHECKING:
    from vllm.config import VllmConfig

#: What `--worker-cls` names for an engine whose requests are `record_prompt`s.
WORKER = "rsp_rl.injection.vllm_worker.SoftPromptWorker"

#: From a prompt's tokens, placeholders included, and its record to what vLLM takes.
PromptMaker = Callable[[list[int], SoftPromptRecord], EmbedsPrompt]


def prompt_maker(config: VllmConfig) -> PromptMaker:
    """How an engine's soft prompts are sent: as records if its workers draw them, or as rows."""
    if config.parallel_config.worker_cls == WORKER:
        return record_prompt
    return partial(mixed_prompt, hidden_size=config.model_config.get_hidden_size())


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
    return _prompt(token_ids, record, record.draw(hidden_size))


def record_prompt(token_ids: list[int], record: SoftPromptRecord) -> EmbedsPrompt:
    """The same with the encoded record at each of its positions: for `WORKER`'s engines only.

    Two prompts share the blocks of vLLM's prefix cache as far as their mixed prompts would:
    whatever decides about H is in the record.

    Args:
        token_ids: Prompt tokens, placeholders included, [T].
        record: The rollout's soft prompt.

    Raises:
        ValueError: As `mixed_prompt`.
    """
    return _prompt(token_ids, record, record.to_tensor().expand(record.length, RECORD_SIZE))


def _prompt(token_ids: list[int], record: SoftPromptRecord, rows: torch.Tensor) -> EmbedsPrompt:
    """A prompt with these rows, [L, w], at the record's positions."""
    span = slice(record.start, record.start + record.length)
    if token_ids[span] != [record.placeholder_id] * record.length:
        raise ValueError(
            f"tokens {record.start} to {record.start + record.length} of a prompt of "
            f"{len(token_ids)} are not the soft prompt's placeholders; was the prompt truncated?"
        )
    is_token = [True] * len(token_ids)
    is_token[span] = [False] * record.length
    return EmbedsPrompt(
        prompt_embeds=among_zeros(rows, record.start, len(token_ids)),
        prompt_token_ids=token_ids,
        prompt_is_token_ids=is_token,
    )


def among_zeros(rows: torch.Tensor, start: int, length: int) -> torch.Tensor:
    """Rows, [L, w], from row `start` of zeros, [length, w]; costs the rows' memory.

    numpy's zeros, unlike torch's, are pages that nobody has written yet.
    """
    zeros = np.zeros((length, rows.shape[1] * rows.itemsize), np.uint8)
    embeds = torch.from_numpy(zeros).view(rows.dtype)
    embeds[start : start + len(rows)] = rows
    return embeds
