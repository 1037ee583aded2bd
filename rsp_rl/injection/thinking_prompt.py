"""A request with a law for vLLM: its settings, and a prompt whose blocks are its own.

Full blocks of vLLM's prefix cache are known by their tokens' ids. The keys and values of a thought
are not those of the token that was emitted for it: whoever has the same ids next, or comes back
after a preemption, would read another's thoughts. So the last row of a thinking request's question
has a number of its own, which all later blocks inherit; the question's blocks stay shared among
requests with a law.
"""

from __future__ import annotations

import secrets
from typing import Any

import torch
from vllm.inputs import EmbedsPrompt

from rsp_rl.draws.record import RECORD_SIZE, SoftPromptRecord
from rsp_rl.injection.vllm_prompt import among_zeros, record_prompt
from rsp_rl.thoughts.settings import EXTRA_ARG, Thinking

#: A number within int64.
_KEY_BITS = 63


def new_key() -> int:
    """What a request's record is claimed by, and what makes its blocks private."""
    return secrets.randbits(_KEY_BITS)


def extra_args(thinking: Thinking, key: int) -> dict[str, Any]:
    """What a thinking request has in `SamplingParams.extra_args`."""
    return {EXTRA_ARG: {**thinking.to_dict(), "key": key}}


def private_prompt(
    token_ids: list[int], record: SoftPromptRecord | None, key: int, made: int = 0
) -> EmbedsPrompt:
    """A prompt of tokens, maybe with a soft prompt, whose blocks nobody else's output finds.

    A column for the number, beside those of the soft prompt's record if there is one: a record may
    be several requests', and the last row may be its own.

    Args:
        token_ids: Prompt tokens, placeholders included, [T].
        record: The rollout's soft prompt, if any.
        key: See `new_key`.
        made: Tokens of them that are the output's, of a request that goes on: thoughts maybe.

    Raises:
        ValueError: As `record_prompt`.
    """
    length = len(token_ids)
    last = length - made - 1
    own = torch.tensor([[key]])
    if record is None or not record.length:
        return EmbedsPrompt(
            prompt_embeds=among_zeros(own, last, length),
            prompt_token_ids=token_ids,
            prompt_is_token_ids=[True] * length,
        )
    prompt = record_prompt(token_ids, record)
    rows = torch.zeros(length - record.start, RECORD_SIZE + 1, dtype=torch.int64)
    rows[: record.length, :RECORD_SIZE] = record.to_tensor()
    rows[last - record.start, -1] = key
    prompt["prompt_embeds"] = among_zeros(rows, record.start, length)
    return prompt
