"""vLLM's V1 model runner with laws: what stands at the positions of thinking requests.

It overrides private methods of vLLM's, whose signatures are looked at before an engine thinks
(`rsp_rl.injection.thinking_engine`). The rest is `thinking_runner`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from rsp_rl.injection.added_rows import Scheduled
from rsp_rl.injection.thinking_runner import ThinkingRunner


class ThinkingRunnerV1(ThinkingRunner, GPUModelRunner):
    """Before the platform's runner in the order of bases."""

    def _update_states(self, scheduler_output: SchedulerOutput) -> Callable | None:
        """Requests come and go."""
        self._come_and_go(scheduler_output)
        return super()._update_states(scheduler_output)

    def _preprocess(self, scheduler_output: SchedulerOutput, *args: Any, **kwargs: Any) -> Any:
        """The step's inputs, then thoughts over those of the tokens that were emitted for them."""
        made = super()._preprocess(scheduler_output, *args, **kwargs)
        if self.added_rows or self.thoughts.requests:
            scheduled = list(self._scheduled(scheduler_output.num_scheduled_tokens))
            self._write_inputs(self.inputs_embeds.gpu, scheduled)
        return made

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Hidden states, which vLLM does not hand to `_sample`."""
        state = self.execute_model_state
        needed = state is not None and self._needs_hidden()
        self._hidden_ND = state.sample_hidden_states if needed else None
        return super().sample_tokens(grammar_output)

    def _sample(self, logits: torch.Tensor, spec_decode_metadata: Any) -> SamplerOutput:
        """Laws make the tokens of those that think, vLLM all others."""
        rows = self._rows() if self.thoughts.requests else []
        if not rows:
            return super()._sample(logits, spec_decode_metadata)
        asked = self.input_batch.sampling_metadata.max_num_logprobs is not None
        ours = [row for row, entry in rows if self._is_ours(entry)]
        if self._alone({*ours}):
            empty = partial(_empty_output, len(logits), asked, logits.device)
            return self._sampled(rows, logits, empty, asked=asked, alone=True)
        stock = partial(super()._sample, logits, spec_decode_metadata)
        with self._undisturbed(ours):
            return self._sampled(rows, logits, stock, asked=asked)

    def _rows(self) -> list[tuple[int, Any]]:
        count = self.input_batch.num_reqs
        discarded = self.discard_request_mask.np[:count].tolist()
        positions = self.optimistic_seq_lens_cpu[:count].tolist()
        return self._due(self.input_batch.req_ids, discarded, positions)

    def _alone(self, ours: set[int]) -> bool:
        """Whether the sampler would work for nobody but those whose tokens laws make."""
        metadata = self.input_batch.sampling_metadata
        if metadata.max_num_logprobs not in (None, 0) or metadata.logprob_token_ids:
            return False
        # Of rows that are thrown away vLLM winds the generators back.
        return all(
            row in ours or (self.discard_request_mask.np[row] and row not in metadata.generators)
            for row in range(self.input_batch.num_reqs)
        )

    @contextmanager
    def _undisturbed(self, rows: Sequence[int]) -> Iterator[None]:
        """Draws that do not count are of generators that do not either.

        An answer's seed would else depend on who else was in the batch of the thoughts before it.
        """
        generators = self.input_batch.sampling_metadata.generators
        own = {row: generators[row] for row in rows if row in generators}
        for row in own:
            generators[row] = self._spare
        try:
            yield
        finally:
            generators.update(own)

    @cached_property
    def _spare(self) -> torch.Generator:
        return torch.Generator(self.device)

    def _scheduled(self, scheduled: dict[str, int]) -> Iterator[Scheduled]:
        """Positions of the step by request, and where they are in vLLM's buffer of inputs."""
        count = self.input_batch.num_reqs
        computed = self.input_batch.num_computed_tokens_cpu[:count].tolist()
        starts = self.query_start_loc.np[:count].tolist()
        for row, request in enumerate(self.input_batch.req_ids):
            first = computed[row]
            yield Scheduled(request, first, first + scheduled[request], starts[row] - first)


def _empty_output(count: int, with_log_probs: bool, device: torch.device) -> SamplerOutput:
    """What vLLM's sampler would give, with nothing in it yet."""
    ids_N1 = torch.zeros(count, 1, dtype=torch.int32, device=device)
    log_probs = None
    if with_log_probs:
        numbers_N1 = torch.zeros(count, 1, device=device)
        log_probs = LogprobsTensors(ids_N1.clone(), numbers_N1, ids_N1[:, 0].clone())
    return SamplerOutput(sampled_token_ids=ids_N1, logprobs_tensors=log_probs)
