"""Actor side: verl's FSDP engine with the embedding hook, for log-probs and for every update."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from rsp_rl.draws.record import RECORD_FIELD, SoftPromptRecord
from rsp_rl.injection.draw_ahead import DrawAhead
from rsp_rl.injection.hook import (
    SoftPromptInjector,
    draw_rows,
    flat_positions,
    rank_slice,
    sums_of,
)
from rsp_rl.injection.thought_hook import ThoughtInjector
from rsp_rl.training.truncation import LOG_MASS_FIELD, TRUNCATION_KEY, Truncation, log_mass
from rsp_rl.training.verl_plugin.forgetting import (
    FORGOTTEN_FIELDS,
    FORGOTTEN_KEY,
    SOFT_PROMPTS,
    THOUGHTS,
)
from rsp_rl.training.verl_plugin.thought_replay import (
    DETACH_KEY,
    DRAWS_FIELD,
    DRAWS_KEY,
    GAP_KEY,
    OLD_DRAWS_FIELD,
    Scores,
    ThoughtReplay,
    by_draw,
    draws_of_field,
    flat_draws,
    forgotten,
)


class SoftPromptFSDPEngine(FSDPEngineWithLMHead):
    """FSDP language-model engine that conditions on each sample's own soft prompt and thoughts.

    Every micro-batch brings its samples' records along, so that shuffling, balancing, dynamic
    batch sizes and replay cannot match a sample with another one's soft prompt.
    """

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        # Here the model is complete (LoRA included) and not yet wrapped; the hook survives FSDP.
        embedding = module.get_input_embeddings()
        self._injector = SoftPromptInjector(embedding)
        self._thinker = ThoughtInjector(embedding)
        self._forgets: str | None = None
        self._hidden_size = int(embedding.weight.shape[-1])
        return super()._build_fsdp_module(module)

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable, forward_only: bool = False
    ) -> Any:
        self._compares = True
        if RECORD_FIELD not in data:
            return super().forward_backward_batch(data, loss_function, forward_only)
        with DrawAhead(decode_records(data), self._hidden_size) as self._ahead:
            return super().forward_backward_batch(data, loss_function, forward_only)

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Callable | None, forward_only: bool
    ) -> Any:
        # Here the micro-batch is still on the CPU: to read it later would be to wait for the
        # device.
        self._spans = _Spans.of(micro_batch) if RECORD_FIELD in micro_batch else None
        detached = tu.get_non_tensor_data(micro_batch, key=DETACH_KEY, default=None)
        self._thoughts = ThoughtReplay.of(micro_batch, detached)
        if OLD_DRAWS_FIELD in micro_batch:
            draws = tu.get_non_tensor_data(micro_batch, key=DRAWS_KEY, default=1)
            micro_batch["old_log_probs"] = draws_of_field(micro_batch[OLD_DRAWS_FIELD], draws)
        asked = tu.get_non_tensor_data(micro_batch, key=FORGOTTEN_KEY, default=())
        first = asked if self._compares else ()
        others = {what: self._if_forgotten(micro_batch, what) for what in first}
        self._compares = False
        # prepare_model_inputs, called in there, enters the injection; it must end with the
        # micro-batch, whatever happens in it.
        with ExitStack() as self._injection:
            loss, output = super().forward_step(micro_batch, loss_function, forward_only)
        for what in asked:
            found = output["model_output"]
            found[FORGOTTEN_FIELDS[what]] = self._forgotten(what, others, found["log_probs"])
        return loss, output

    @torch.no_grad()
    def _if_forgotten(self, micro_batch: TensorDict, what: str) -> torch.Tensor:
        """What this micro-batch's gaps or log-probs would be without something: nested [B, T].

        Every rank does so with its first micro-batch, whatever is in it: they gather weights
        together.
        """
        self._forgets = what
        try:
            with ExitStack() as self._injection:
                _, output = super().forward_step(micro_batch, None, forward_only=True)
        finally:
            self._forgets = None
        found = output["model_output"]
        if what == THOUGHTS:
            gaps = tu.get_non_tensor_data(micro_batch, key=GAP_KEY, default=())
            return found[(*gaps, "log_probs")[0]]
        return found["log_probs"]

    def _forgotten(
        self, what: str, others: dict[str, torch.Tensor], like: torch.Tensor
    ) -> torch.Tensor:
        """A field of `FORGOTTEN_FIELDS`, NaN where nothing was asked: nested [B, T]."""
        if what == THOUGHTS:
            return forgotten(self._thoughts if others else None, others.get(what, like))
        if others and self._spans is not None:
            return others[what]
        none_T = torch.full_like(like.values(), torch.nan).detach()
        return torch.nested.nested_tensor_from_jagged(none_T, like.offsets())

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict, dict]:
        model_inputs, output_args = super().prepare_model_inputs(micro_batch=micro_batch)
        if self._spans is not None and self._forgets != SOFT_PROMPTS:
            records, starts = self._spans.records, self._spans.packed_starts
            width = model_inputs["input_ids"].shape[1]
            if not self._is_packed(micro_batch):
                starts = [row * width for row in range(len(records))]
            positions = flat_positions(records, starts)
            rows = draw_rows(records, self._hidden_size, self._ahead.draw)
            sums = sums_of(records)
            if self.use_ulysses_sp:
                rank = torch.distributed.get_rank(self.ulysses_parallel_group)
                positions, rows, sums = rank_slice(positions, rows, rank, width, sums)
            self._injection.enter_context(self._injector.inject(positions, rows, sums))
        if self._thoughts is not None:
            if self.use_ulysses_sp:
                raise ValueError("thoughts of sequences that are cut over ranks are not replayed")
            width = None if self._is_packed(micro_batch) else model_inputs["input_ids"].shape[1]
            self._thoughts_at = self._thoughts.positions(self._thoughts.starts(width))
            self._injection.enter_context(
                self._thinker.inject(
                    self._thoughts.thoughts,
                    self._thoughts_at,
                    detached=self._thoughts.detached,
                    forgotten=self._forgets == THOUGHTS,
                )
            )
        return model_inputs, output_args

    def prepare_model_outputs(
        self,
        output: Any,
        output_args: dict,
        micro_batch: TensorDict,
        logits_processor_func: Callable | None,
    ) -> dict[str, torch.Tensor]:
        scores = None
        if self._thoughts is not None:  # verl divides the logits in place
            at = self._thoughts_at - 1
            scores = self._thought_scores(output.logits, at, micro_batch)
        model_output = super().prepare_model_outputs(
            output, output_args, micro_batch, logits_processor_func
        )
        self._put_thoughts(model_output, scores, micro_batch)
        truncation = tu.get_non_tensor_data(micro_batch, key=TRUNCATION_KEY, default=None)
        if truncation is not None:
            model_output[LOG_MASS_FIELD] = self._log_mass(
                output.logits, output_args, micro_batch, Truncation(*truncation)
            )
        return model_output

    @staticmethod
    def _is_packed(micro_batch: TensorDict) -> bool:
        return tu.get_non_tensor_data(micro_batch, key="use_remove_padding", default=True)

    def _thought_scores(
        self, logits: torch.Tensor, at_N: torch.Tensor, micro_batch: TensorDict
    ) -> Scores:
        """Log-probs of the micro-batch's thoughts from the logits that predict them.

        Args:
            logits: Of any layout, [..., V]; before a temperature.
            at_N: Indices into them, flat.
            micro_batch: verl's.
        """
        assert self._thoughts is not None
        logits = logits.full_tensor() if isinstance(logits, DTensor) else logits
        # Rollouts never have what lies beyond the tokenizer's tokens (verl masks it in vLLM).
        known = logits.flatten(0, -2)[:, : len(self.model_config.tokenizer)]
        gaps = bool(tu.get_non_tensor_data(micro_batch, key=GAP_KEY, default=()))
        return self._thoughts.scores(known, at_N, self._thinker.embedding, gaps=gaps)

    @staticmethod
    def _put_thoughts(
        model_output: dict[str, torch.Tensor], scores: Scores | None, micro_batch: TensorDict
    ) -> None:
        """What is asked of thoughts into verl's output, of a micro-batch without any too."""
        if scores is not None:
            scores.put(model_output)
        log_probs = model_output["log_probs"]
        for field in tu.get_non_tensor_data(micro_batch, key=GAP_KEY, default=()):
            if field not in model_output:
                none_T = torch.full_like(log_probs.values(), torch.nan).detach()
                model_output[field] = torch.nested.nested_tensor_from_jagged(
                    none_T, log_probs.offsets()
                )
        if draws := tu.get_non_tensor_data(micro_batch, key=DRAWS_KEY, default=0):
            made = by_draw(log_probs, scores, draws)
            if OLD_DRAWS_FIELD in micro_batch:
                model_output["log_probs"] = made
            else:
                model_output[DRAWS_FIELD] = flat_draws(made)

    def _log_mass(
        self,
        logits: torch.Tensor,
        output_args: dict,
        micro_batch: TensorDict,
        truncation: Truncation,
    ) -> torch.Tensor:
        """`log_mass` of each position, in the layout of verl's log-probs: nested [B, T]."""
        logits = logits.full_tensor() if isinstance(logits, DTensor) else logits
        offsets = micro_batch["input_ids"].offsets()
        if "temperature_rmpad" in output_args:  # packed: [1, T, V], this rank's slice
            mass_T = log_mass(logits[0], output_args["temperature_rmpad"], truncation)
            mass_T = self._gather_and_unpad_packed(mass_T, output_args["pad_size"])
        else:  # padded on the right: [B, T, V]
            rows = zip(logits, output_args["temperature"], offsets.diff().tolist(), strict=True)
            mass_T = torch.cat([log_mass(row[:n], by.expand(n), truncation) for row, by, n in rows])
        return torch.nested.nested_tensor_from_jagged(mass_T, offsets)


@dataclass(frozen=True)
class _Spans:
    """Where a micro-batch's soft prompts go.

    Attributes:
        records: One a sequence.
        packed_starts: Flat index of each sequence's first token in the packed micro-batch.
    """

    records: list[SoftPromptRecord]
    packed_starts: list[int]

    @classmethod
    def of(cls, micro_batch: TensorDict) -> _Spans:
        """Of a micro-batch, whose tokens are checked.

        Raises:
            ValueError: Where a sample's tokens and record do not belong together.
        """
        records = decode_records(micro_batch)
        check_tokens(records, micro_batch["input_ids"])
        return cls(records, micro_batch["input_ids"].offsets()[:-1].tolist())


def decode_records(micro_batch: TensorDict) -> list[SoftPromptRecord]:
    """The micro-batch's records; verl's synthetic padding samples get a soft prompt of length 0.

    verl fills a batch up with copies of a real sample whose tokens it replaces by end-of-sequence
    ones and whose response mask it zeroes (`construct_minimal_padding_template`): the copied
    record is not theirs.
    """
    encoded = torch.stack(micro_batch[RECORD_FIELD].unbind())
    is_real = torch.stack([mask.any() for mask in micro_batch["loss_mask"].unbind()]).tolist()
    records = []
    for row, real in zip(encoded, is_real, strict=True):
        record = SoftPromptRecord.from_tensor(row)
        if not real:
            record = SoftPromptRecord(**{**record.to_dict(), "start": 0, "length": 0})
        records.append(record)
    return records


def check_tokens(records: list[SoftPromptRecord], input_ids: torch.Tensor) -> None:
    """Make sure that each record points at placeholders, or at the tokens that rows are added to.

    Args:
        records: One a sequence.
        input_ids: Nested int64 [B, T].

    Raises:
        ValueError: Where a sample's tokens and record do not belong together.
    """
    for number, (record, tokens) in enumerate(zip(records, input_ids.unbind(), strict=True)):
        span = tokens[record.start : record.start + record.length]
        if not record.stands_at(span.tolist()):
            wanted = (
                "those that noise was added to" if record.added_to else "soft prompt placeholders"
            )
            raise ValueError(
                f"sample {number} of a micro-batch: tokens {record.start} to "
                f"{record.start + record.length} of {len(tokens)} are not {wanted}; its prompt was "
                "truncated or its record belongs to another sample"
            )


# verl looks up (device, vendor) before the device alone, where its own CUDA engine is.
EngineRegistry.register("language_model", ["fsdp", "fsdp2"], "cuda", "nvidia")(SoftPromptFSDPEngine)
