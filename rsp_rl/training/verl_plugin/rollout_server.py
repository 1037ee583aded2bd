"""Rollout side: verl's vLLM server, whose requests may carry a soft prompt record, and a law."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from typing import Any

import ray
from verl.utils.device import get_device_name
from verl.workers.rollout.replica import RolloutMode, TokenOutput
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm import SamplingParams
from vllm.config import VllmConfig

from rsp_rl.basics.errors import GenerationError
from rsp_rl.console import events
from rsp_rl.draws.record import EXTRA_ARG, SoftPromptRecord
from rsp_rl.injection.thinking_engine import check_engine, check_request
from rsp_rl.injection.thinking_prompt import new_key, private_prompt
from rsp_rl.injection.vllm_prompt import WORKER, PromptMaker, prompt_maker
from rsp_rl.thoughts.record import THOUGHT_FIELD, ThoughtRecord
from rsp_rl.thoughts.settings import EXTRA_ARG as THOUGHT_ARG
from rsp_rl.thoughts.settings import SO_FAR, Thinking
from rsp_rl.training.verl_plugin.weight_sync import JOB_VARIABLE, cluster_job

logger = logging.getLogger(__name__)

ENGINE_POLL_S = 1.0


class SoftPromptVLLMServer(vLLMHttpServer):
    """verl's vLLM server, whose engine understands requests with a soft prompt record."""

    def __init__(
        self, config: Any, model_config: Any, rollout_mode: RolloutMode, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(config, model_config, rollout_mode, *args, **kwargs)
        # Of a replica of its own verl makes the sender in a process that does not know ours.
        if rollout_mode == RolloutMode.HYBRID:
            os.environ[JOB_VARIABLE] = cluster_job()

    async def run_server(self, args: argparse.Namespace) -> None:
        await super().run_server(args)
        make_prompt = prompt_maker(self.engine.vllm_config)
        generate = with_soft_prompts(self.engine.generate, make_prompt)
        self.engine.generate = with_thoughts(generate, self.engine.vllm_config)
        self._watch = asyncio.create_task(self._end_with_engine())

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], *args: Any, **kwargs: Any
    ) -> TokenOutput:
        """See `vLLMHttpServer.generate`; a thinking request's record comes back with its output.

        In `extra_fields`, as `ThoughtRecord.to_bytes` encodes it; of an output that goes on, from
        its first token.

        Raises:
            GenerationError: If the engine has no record of it.
            ValueError: If it is the record of another output.
        """
        extra_args = sampling_params.get("extra_args") or {}
        if THOUGHT_ARG not in extra_args:
            return await super().generate(prompt_ids, sampling_params, *args, **kwargs)
        key = new_key()
        thinking = {**extra_args[THOUGHT_ARG], "key": key}
        encoded = thinking.get(SO_FAR)
        before = [] if encoded is None else ThoughtRecord.from_bytes(encoded).emitted
        sampling_params = {**sampling_params, "extra_args": {**extra_args, THOUGHT_ARG: thinking}}
        try:
            output = await super().generate(prompt_ids, sampling_params, *args, **kwargs)
        except BaseException:
            await self.engine.collective_rpc("drop_thoughts", args=([key],))
            raise
        # verl's own `collective_rpc` drops what comes back.
        by_worker = await self.engine.collective_rpc("take_thoughts", args=([key],))
        if not output.token_ids:  # interrupted before it began: it goes on from where it did
            return output
        found = [encoded for (encoded,) in by_worker if encoded is not None]
        if not found:
            raise GenerationError("vLLM's worker has no record of a rollout's thoughts")
        tokens = [*before, *output.token_ids]
        record = ThoughtRecord.from_bytes(found[0]).cut(len(tokens))
        record.check(tokens)
        output.extra_fields[THOUGHT_FIELD] = record.to_bytes()
        return output

    async def _end_with_engine(self) -> None:
        """End this process once vLLM's engine process has died.

        Without an engine the server would live on and fail its requests, and verl would train on
        what other servers made of the batch. A dead server is noticed (see `watchdog`).
        """
        while not self.engine.errored:
            await asyncio.sleep(ENGINE_POLL_S)
        logger.error("vLLM's engine process died; this server ends too")
        os._exit(1)

    def _preprocess_engine_kwargs(self, engine_kwargs: dict[str, Any]) -> None:
        super()._preprocess_engine_kwargs(engine_kwargs)
        if engine_kwargs.get("enable_prompt_embeds"):
            engine_kwargs.setdefault("worker_cls", WORKER)

    def _get_worker_extension_cls(self) -> str:
        if get_device_name() == "cpu":
            return "rsp_rl.training.verl_plugin.cpu_rollout_worker.CpuRolloutWorkerExtension"
        return super()._get_worker_extension_cls()


class SoftPromptVLLMReplica(vLLMReplica):
    """verl's vLLM replica with `SoftPromptVLLMServer` as its Ray actor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        events.tell("stage", name="vLLM: engine, agent loops")
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(SoftPromptVLLMServer)


def with_soft_prompts(generate: Any, make_prompt: PromptMaker) -> Any:
    """Wrap an engine's `generate`: requests with a soft prompt get a mixed prompt.

    A record of length 0 leaves the prompt as it is: the request of a rollout without a soft prompt.
    """

    def generate_with_soft_prompt(
        *, prompt: Any, sampling_params: SamplingParams, **kwargs: Any
    ) -> AsyncGenerator:
        # A copy: the next turn of the same rollout may come with the very same dictionary.
        extra_args = dict(sampling_params.extra_args or {})
        encoded = extra_args.pop(EXTRA_ARG, None)
        if encoded is not None:
            sampling_params.extra_args = extra_args or None
            record = SoftPromptRecord(**encoded)
            if record.length:
                prompt = make_prompt(prompt["prompt_token_ids"], record)
        return generate(prompt=prompt, sampling_params=sampling_params, **kwargs)

    return generate_with_soft_prompt


def with_thoughts(generate: Any, config: VllmConfig) -> Any:
    """Wrap an engine's `generate` that knows soft prompts: thinking requests get private blocks.

    Args:
        generate: See `with_soft_prompts`.
        config: The engine's.
    """

    def generate_with_thoughts(
        *, prompt: Any, sampling_params: SamplingParams, **kwargs: Any
    ) -> AsyncGenerator:
        extra_args = dict(sampling_params.extra_args or {})
        content = extra_args.get(THOUGHT_ARG)
        if content is not None:
            check_engine(config)
            check_request(config, Thinking.from_dict(content), sampling_params)
            encoded = extra_args.pop(EXTRA_ARG, None)
            sampling_params.extra_args = extra_args
            record = None if encoded is None else SoftPromptRecord(**encoded)
            encoded = content.get(SO_FAR)
            made = 0 if encoded is None else len(ThoughtRecord.from_bytes(encoded))
            prompt = private_prompt(prompt["prompt_token_ids"], record, content["key"], made)
        return generate(prompt=prompt, sampling_params=sampling_params, **kwargs)

    return generate_with_thoughts
