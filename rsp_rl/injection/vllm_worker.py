"""vLLM's worker that draws soft prompts itself, and thinks by the laws of its requests.

A request brings a soft prompt's record instead of T x d numbers, and a law's settings. The worker
is named by vLLM's own option `--worker-cls` (see `rsp_rl.injection.vllm_prompt`). Everything
between the request and the worker is vLLM's and knows nothing of either: to it records are
embeddings that happen to be narrow, and settings arguments for somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.record import RECORD_SIZE, SoftPromptRecord
from rsp_rl.injection.thinking_engine import check_adds, engine_fault, has_v2, interface_fault
from rsp_rl.injection.thinking_runner import ThinkingRunner, asks
from rsp_rl.injection.vllm_prompt import among_zeros

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker

#: Draws of requests that begin in the same step are independent, and numpy makes them in parallel.
_THREADS = 4


class SoftPromptWorker(PlatformWorker):
    """The platform's worker; requests of other kinds pass through it untouched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rsp-draw")

    def init_device(self) -> None:
        """See `WorkerBase.init_device`; the runner is one that thinks, if vLLM's is as it knows it.

        If not, requests with a law are refused (`engine_fault`), and others served; an engine of an
        encoder alone, whose runner is another, gets none.
        """
        v2 = has_v2(self.vllm_config)
        if interface_fault(v2) or getattr(self.vllm_config, "is_mm_encoder_only", False):
            super().init_device()
            return
        with thinking_runner(v2):
            super().init_device()
        assert isinstance(self.model_runner, ThinkingRunner)

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        """See `WorkerBase.execute_model`; requests that are new to the worker get their rows."""
        for request in scheduler_output.scheduled_new_reqs:
            if asks(request) and (fault := engine_fault(self.vllm_config)):
                raise ConfigError(fault)
            if has_key_alone(request):
                request.prompt_embeds = request.prompt_is_token_ids = None
        self._draw(scheduler_output.scheduled_new_reqs)
        return super().execute_model(scheduler_output)

    def _draw(self, requests: Sequence[NewRequestData]) -> None:
        """Draw the rows of new requests, those that stand alone and those that are added at once.

        vLLM gets the former in the prompt, and of the latter the tokens: the runner adds the rows.

        Raises:
            ConfigError: If rows are to be added, and the runner is none that adds.
        """
        drawn = [request for request in requests if has_record(request)]
        added = [request for request in requests if has_added_rows(request)]
        if added:
            check_adds(self.vllm_config)
        if not (drawn or added):
            return
        hidden_size = self.model_config.get_hidden_size()
        prompts = self._pool.map(lambda request: drawn_prompt(request, hidden_size), drawn)
        records = [added_record(request) for request in added]
        rows = self._pool.map(lambda record: record.draw(hidden_size), records)
        for request, prompt in zip(drawn, prompts, strict=True):
            request.prompt_embeds = prompt
        for request, record, rows_LD in zip(added, records, rows, strict=True):
            self.model_runner.added_rows.arrive(request.req_id, record.start, rows_LD)
            request.prompt_embeds = request.prompt_is_token_ids = None

    def take_thoughts(self, keys: list[int]) -> list[bytes | None]:
        """Records of finished outputs, which are then forgotten; for `collective_rpc`.

        Args:
            keys: See `rsp_rl.injection.thinking_prompt`.

        Returns:
            Encoded `ThoughtRecord`s, maybe longer than the outputs; None where there is none.
        """
        records = [self.model_runner.thoughts.take(key) for key in keys]
        return [None if record is None else record.to_bytes() for record in records]

    def drop_thoughts(self, keys: list[int]) -> None:
        """Forget records that nobody will claim, as of outputs that were given up."""
        for key in keys:
            self.model_runner.thoughts.take(key)


@contextmanager
def thinking_runner(v2: bool = False) -> Iterator[None]:
    """Let vLLM's worker make a runner that thinks.

    It names the class in a module and asks nobody, hence this patch of one name, for as long as the
    worker makes its runner: another engine of this process gets vLLM's own.

    Args:
        v2: Which of vLLM's runners it makes.
    """
    module, name = runner_of_platform(v2)
    if v2:
        from rsp_rl.injection.thinking_runner_v2 import ThinkingRunnerV2 as thinks
    else:
        from rsp_rl.injection.thinking_runner_v1 import ThinkingRunnerV1 as thinks
    stock = getattr(module, name)
    setattr(module, name, type("ThinkingModelRunner", (thinks, stock), {}))
    try:
        yield
    finally:
        setattr(module, name, stock)


def runner_of_platform(v2: bool) -> tuple[ModuleType, str]:
    """The module in which the platform's worker looks for its runner's class, and its name."""
    on_cpu = current_platform.is_cpu()
    if v2:
        module = "cpu.model_runner" if on_cpu else "gpu.model_runner"
    else:
        module = "cpu_worker" if on_cpu else "gpu_model_runner"
    return import_module(f"vllm.v1.worker.{module}"), (
        "CPUModelRunner" if on_cpu else "GPUModelRunner"
    )


def has_key_alone(request: NewRequestData) -> bool:
    """Whether a request has a thinking request's private prompt, and no soft prompt in it.

    Its rows have told blocks apart and are of no more use.
    """
    return _has_tokens_alone(request) and request.prompt_embeds.shape[1] < RECORD_SIZE


def has_added_rows(request: NewRequestData) -> bool:
    """Whether a request came as a `record_prompt` of rows that are added to its tokens."""
    return _has_tokens_alone(request) and request.prompt_embeds.shape[1] >= RECORD_SIZE


def _has_tokens_alone(request: NewRequestData) -> bool:
    return has_numbers(request) and False not in (request.prompt_is_token_ids or ())


def has_numbers(request: NewRequestData) -> bool:
    """Whether what a request has for embeddings is none: no embedding is a whole number."""
    return request.prompt_embeds is not None and request.prompt_embeds.dtype == torch.int64


def has_record(request: NewRequestData) -> bool:
    """Whether a request came as a `record_prompt` with placeholders, maybe with a key beside."""
    return has_numbers(request) and not _has_tokens_alone(request)


def drawn_prompt(request: NewRequestData, hidden_size: int) -> torch.Tensor:
    """What `mixed_prompt` would have sent, [T, d].

    Raises:
        ValueError: If the record is not at its own positions.
    """
    assert request.prompt_embeds is not None
    assert request.prompt_is_token_ids is not None
    start = request.prompt_is_token_ids.index(False)
    record = SoftPromptRecord.from_tensor(request.prompt_embeds[start, :RECORD_SIZE])
    end = start + request.prompt_is_token_ids.count(False)
    if (record.start, record.start + record.length) != (start, end):
        raise ValueError(
            f"request {request.req_id} has its soft prompt at tokens {start} to {end}, its record "
            f"says {record.start} to {record.start + record.length}"
        )
    return among_zeros(record.draw(hidden_size), start, len(request.prompt_embeds))


def added_record(request: NewRequestData) -> SoftPromptRecord:
    """The record of a request whose rows are added.

    Raises:
        ValueError: If the record is not at its own positions, or the tokens there are others.
    """
    assert request.prompt_embeds is not None
    records = request.prompt_embeds[:, :RECORD_SIZE]
    start = int(records.any(dim=1).nonzero()[0, 0])  # before it are zeros, and no record is
    record = SoftPromptRecord.from_tensor(records[start])
    end = record.start + record.length
    span = (request.prompt_token_ids or [])[record.start : end]
    if record.start != start or not record.added_to or not record.stands_at(span):
        raise ValueError(
            f"request {request.req_id} has a record at token {start}, which says that rows are "
            f"added at {record.start} to {end}, to other tokens or none"
        )
    return record
