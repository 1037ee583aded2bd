"""A prompt for vLLM: the L soft prompt rows as embeddings, all other tokens as ids.

The mixed prompt (vLLM's `EmbedsPrompt` with `prompt_is_token_ids`) lets vLLM embed the real tokens
with its *current* weights, and hash the embedding bytes into its prefix-cache blocks: the group's
rollouts share the question's blocks and never those of the soft prompt.

vLLM wants a row for every token, though L of them count: 29 MB a request for 2,048 tokens of a 7B
model, made, sent, hashed and held until the request ends. `record_prompt` puts the rollout's record
into the rows' place, 80 bytes a token, which vLLM carries and hashes in the same way; workers that
know records (`rsp_rl.injection.vllm_worker`) draw H themselves. `mixed_prompt` works with any
worker and is the reference.

Rows that are added to tokens' embeddings (`SoftPromptRecord.added_to`) can be sent as records
alone. All positions are then tokens, which vLLM embeds; what is sent beside them keeps the draw's
blocks of the prefix cache private, and tells the worker what to add.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from vllm.inputs import EmbedsPrompt

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.record import RECORD_SIZE, SoftPromptRecord
from rsp_rl.injection.model_runner import WORKER
from rsp_rl.injection.thinking_engine import check_adds

if TYPE_CHECKING:
    from vllm.config import VllmConfig

#: From a prompt's tokens, placeholders included, and its record to what vLLM takes.
PromptMaker = Callable[[list[int], SoftPromptRecord], EmbedsPrompt]


def prompt_maker(config: VllmConfig) -> PromptMaker:
    """How an engine's soft prompts are sent: as records if its workers draw them, or as rows.

    What it returns raises `ConfigError` where the engine cannot add rows and a record says so.
    """
    if config.parallel_config.worker_cls == WORKER:
        return partial(_checked_record_prompt, config)
    return partial(mixed_prompt, hidden_size=config.model_config.get_hidden_size())


def _checked_record_prompt(
    config: VllmConfig, token_ids: list[int], record: SoftPromptRecord
) -> EmbedsPrompt:
    if record.added_to:
        check_adds(config)
    return record_prompt(token_ids, record)


def mixed_prompt(token_ids: list[int], record: SoftPromptRecord, hidden_size: int) -> EmbedsPrompt:
    """A prompt of token ids with H at the record's positions.

    Args:
        token_ids: Prompt tokens, placeholders included, [T].
        record: The rollout's soft prompt.
        hidden_size: d.

    Raises:
        ConfigError: If rows are to be added to embeddings, which only `WORKER` knows of.
        ValueError: If the tokens at the record's positions are not placeholders: the prompt was
            cut or changed after the soft prompt was placed.
    """
    if record.added_to:
        raise ConfigError(
            f"rsp.law={record.law} adds to the embeddings of tokens, which vLLM's own worker does "
            f"not; start the engine with --worker-cls {WORKER}"
        )
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
    if not record.stands_at(token_ids[span]):
        wanted = (
            "those that noise is made for" if record.added_to else "the soft prompt's placeholders"
        )
        raise ValueError(
            f"tokens {record.start} to {record.start + record.length} of a prompt of "
            f"{len(token_ids)} are not {wanted}; was the prompt truncated?"
        )
    is_token = [True] * len(token_ids)
    if not record.added_to:
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
