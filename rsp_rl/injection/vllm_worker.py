"""vLLM's worker that draws soft prompts itself: requests bring a record instead of T x d numbers.

Named by vLLM's own option `--worker-cls` (see `rsp_rl.injection.vllm_prompt`). Everything between
the request and the worker is vLLM's and knows nothing of records: to it they are embeddings that
happen to be narrow.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

from rsp_rl.draws.record import SoftPromptRecord
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

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        """See `WorkerBase.execute_model`; requests that are new to the worker get their rows."""
        new = [request for request in scheduler_output.scheduled_new_reqs if has_record(request)]
        if new:
            hidden_size = self.model_config.get_hidden_size()
            prompts = self._pool.map(lambda request: drawn_prompt(request, hidden_size), new)
            for request, prompt in zip(new, prompts, strict=True):
                request.prompt_embeds = prompt
        return super().execute_model(scheduler_output)


def has_record(request: NewRequestData) -> bool:
    """Whether a request came as a `record_prompt`: no embedding is a whole number."""
    return request.prompt_embeds is not None and request.prompt_embeds.dtype == torch.int64


def drawn_prompt(request: NewRequestData, hidden_size: int) -> torch.Tensor:
    """What `mixed_prompt` would have sent, [T, d].

    Raises:
        ValueError: If the record is not at its own positions.
    """
    assert request.prompt_embeds is not None
    assert request.prompt_is_token_ids is not None
    start = request.prompt_is_token_ids.index(False)
    record = SoftPromptRecord.from_tensor(request.prompt_embeds[start])
    end = start + request.prompt_is_token_ids.count(False)
    if (record.start, record.start + record.length) != (start, end):
        raise ValueError(
            f"request {request.req_id} has its soft prompt at tokens {start} to {end}, its record "
            f"says {record.start} to {record.start + record.length}"
        )
    return among_zeros(record.draw(hidden_size), start, len(request.prompt_embeds))
