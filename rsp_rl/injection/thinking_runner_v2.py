"""vLLM's V2 model runner with laws: the same as `thinking_runner_v1`, in the other one's hooks.

V2 hands its batch to each of them. What its sampler draws by a seed it draws by position too, so
that a draw that does not count disturbs nobody's; and a preempted request comes again as a new one,
with what it has emitted for a part of its prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.model_runner import GPUModelRunner
from vllm.v1.worker.gpu.sample.output import SamplerOutput
from vllm.v1.worker.gpu.sample.sampler import Sampler

from rsp_rl.injection.added_rows import Scheduled
from rsp_rl.injection.thinking_engine import engine_fault
from rsp_rl.injection.thinking_runner import ThinkingRunner


class ThinkingRunnerV2(ThinkingRunner, GPUModelRunner):
    """Before the platform's runner in the order of bases."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """What embeds and what samples exist from here on; V2 asks objects of its own for both.

        An engine that cannot think, for what its sampler does among others, keeps its sampler; one
        that pools has none.
        """
        super().load_model(*args, **kwargs)
        self.model_state.prepare_inputs_embeds = self._prepare_inputs_embeds
        if self.sampler is not None and engine_fault(self.vllm_config) is None:
            self._stock_sampler = self.sampler
            self.sampler = LawSampler(self.sampler, self)

    def add_requests(self, scheduler_output: SchedulerOutput) -> None:
        """Requests come and go; of a step this is the first that sees both."""
        self._come_and_go(scheduler_output)
        super().add_requests(scheduler_output)

    def _prepare_inputs_embeds(
        self, scheduled_encoder_inputs: Any, input_batch: InputBatch, req_states: Any
    ) -> torch.Tensor:
        """The step's inputs, then thoughts over those of the tokens that were emitted for them.

        In place: a CUDA graph reads this very buffer.
        """
        # By its class: what a runner kept would outlive vLLM's `shutdown`, the weights with it.
        state = self.model_state
        inputs_TD = type(state).prepare_inputs_embeds(
            state, scheduled_encoder_inputs, input_batch, req_states
        )
        if self.added_rows or self.thoughts.requests:
            self._write_inputs(inputs_TD, list(_scheduled(input_batch)))
        return inputs_TD

    def sample(
        self, hidden_states: torch.Tensor, input_batch: InputBatch, grammar_output: Any
    ) -> Any:
        """Hidden states, which vLLM does not hand to its sampler."""
        needed = self._needs_hidden()
        self._hidden_ND = hidden_states[input_batch.logits_indices] if needed else None
        return super().sample(hidden_states, input_batch, grammar_output)

    def sampled(self, logits: torch.Tensor, input_batch: InputBatch) -> SamplerOutput:
        """Laws make the tokens of those that think, vLLM all others."""
        rows = self._rows(input_batch) if self.thoughts.requests else []
        if not rows:
            return self._stock_sampler(logits, input_batch)
        asked = self._stock_sampler.get_logprobs_dims(input_batch.idx_mapping_np) is not None
        stock = partial(self._stock_sampler, logits, input_batch)
        return self._sampled(rows, logits, stock, asked=asked)

    def _rows(self, batch: InputBatch) -> list[tuple[int, Any]]:
        ends = batch.num_computed_tokens_np + batch.num_scheduled_tokens
        discarded = (ends < batch.prefill_len_np).tolist()
        return self._due(batch.req_ids, discarded, ends.tolist())


class LawSampler:
    """In the place of vLLM's sampler, which it passes for."""

    def __init__(self, stock: Sampler, runner: ThinkingRunnerV2) -> None:
        self._stock = stock
        self._runner = runner

    def __call__(self, logits: torch.Tensor, input_batch: InputBatch) -> SamplerOutput:
        return self._runner.sampled(logits, input_batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)


def _scheduled(batch: InputBatch) -> Iterator[Scheduled]:
    """Positions of the step by request, and where they are in vLLM's buffer of inputs."""
    firsts = batch.num_computed_tokens_np.tolist()
    counts = batch.num_scheduled_tokens.tolist()
    starts = batch.query_start_loc_np.tolist()
    for request, first, count, start in zip(batch.req_ids, firsts, counts, starts, strict=False):
        yield Scheduled(request, first, first + count, start - first)
