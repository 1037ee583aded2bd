"""Rollout side: vLLM gets the L soft prompt rows as embeddings, all other tokens as ids.

The mixed prompt (vLLM's `EmbedsPrompt` with `prompt_is_token_ids`) lets vLLM embed the real tokens
with its *current* weights, and hash the embedding bytes into its prefix-cache blocks: the group's
rollouts share the question's blocks and never those of the soft prompt.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from typing import Any

import ray
import torch
from verl.utils.device import get_device_name
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm import SamplingParams
from vllm.inputs import EmbedsPrompt

from rsp_rl.soft_prompt import EXTRA_ARG, SoftPromptRecord


class SoftPromptVLLMServer(vLLMHttpServer):
    """verl's vLLM server, whose engine understands requests with a soft prompt record."""

    async def run_server(self, args: argparse.Namespace) -> None:
        await super().run_server(args)
        hidden_size = self.engine.model_config.get_hidden_size()
        self.engine.generate = _with_soft_prompts(self.engine.generate, hidden_size)

    def _get_worker_extension_cls(self) -> str:
        if get_device_name() == "cpu":
            return "rsp_rl.verl_plugin.cpu_rollout_worker.CpuRolloutWorkerExtension"
        return super()._get_worker_extension_cls()


class SoftPromptVLLMReplica(vLLMReplica):
    """verl's vLLM replica with `SoftPromptVLLMServer` as its Ray actor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(SoftPromptVLLMServer)


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


def _with_soft_prompts(generate: Any, hidden_size: int) -> Any:
    """Wrap an engine's `generate`: requests with a record get a mixed prompt."""

    def generate_with_soft_prompt(
        *, prompt: Any, sampling_params: SamplingParams, **kwargs: Any
    ) -> AsyncGenerator:
        encoded = (sampling_params.extra_args or {}).pop(EXTRA_ARG, None)
        if encoded is not None:
            record = SoftPromptRecord(**encoded)
            prompt = mixed_prompt(prompt["prompt_token_ids"], record, hidden_size)
        return generate(prompt=prompt, sampling_params=sampling_params, **kwargs)

    return generate_with_soft_prompt
