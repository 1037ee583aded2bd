"""Rollout side: verl's vLLM server, whose requests may carry a soft prompt record."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from typing import Any

import ray
from verl.utils.device import get_device_name
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica
from vllm import SamplingParams

from rsp_rl.console import events
from rsp_rl.draws.record import EXTRA_ARG, SoftPromptRecord
from rsp_rl.injection.vllm_prompt import WORKER, PromptMaker, prompt_maker

logger = logging.getLogger(__name__)

ENGINE_POLL_S = 1.0


class SoftPromptVLLMServer(vLLMHttpServer):
    """verl's vLLM server, whose engine understands requests with a soft prompt record."""

    async def run_server(self, args: argparse.Namespace) -> None:
        await super().run_server(args)
        make_prompt = prompt_maker(self.engine.vllm_config)
        self.engine.generate = with_soft_prompts(self.engine.generate, make_prompt)
        self._watch = asyncio.create_task(self._end_with_engine())

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
