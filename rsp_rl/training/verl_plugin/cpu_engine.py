"""The actor on a CPU: what a GPU has kernels for, as far as plain PyTorch can do it.

Packed sequences attend one by one (`attention_by_sequence`), and logits, a third of a small model's
work, are made where they are read: at the positions that predict a response's tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.engine import EngineRegistry

from rsp_rl.training.label_log_probs import label_log_probs
from rsp_rl.training.truncation import LOG_MASS_FIELD, TRUNCATION_KEY, Truncation, log_mass
from rsp_rl.training.verl_plugin.actor_engine import SoftPromptFSDPEngine
from rsp_rl.training.verl_plugin.attention_by_sequence import AttentionBySequence

#: What verl may ask for beside log-probs and entropy; it needs the logits of all positions.
_OF_ALL_LOGITS = (
    "calculate_sum_pi_squared",
    "distillation_use_topk",
    "distillation_only",
    "use_fused_kernels",
)


class CpuSoftPromptFSDPEngine(SoftPromptFSDPEngine):
    """`SoftPromptFSDPEngine` for CPUs; padded micro-batches go verl's way, as those of Ulysses do.

    Log-probs and entropy of a prompt's own tokens, which nothing reads, are 0.
    """

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        base = module.get_base_model() if hasattr(module, "get_base_model") else module
        self._takes_positions = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._attention = AttentionBySequence()
        self._cuts = self._attention.attach(base)
        return super()._build_fsdp_module(module)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict, dict]:
        model_inputs, output_args = super().prepare_model_inputs(micro_batch)
        packed = "temperature_rmpad" in output_args and not self.use_ulysses_sp
        self._attention.lengths = None
        if packed and self._cuts:
            lengths = micro_batch["input_ids"].offsets().diff().tolist()
            padding = output_args["pad_size"]
            self._attention.lengths = [*lengths, padding] if padding else lengths
        self._read = None
        asked = any(
            tu.get_non_tensor_data(micro_batch, key, default=False) for key in _OF_ALL_LOGITS
        )
        if packed and self._takes_positions and not asked:
            self._read = model_inputs["logits_to_keep"] = read_positions(micro_batch)
        return model_inputs, output_args

    def prepare_model_outputs(
        self,
        output: Any,
        output_args: dict,
        micro_batch: TensorDict,
        logits_processor_func: Callable | None,
    ) -> dict[str, torch.Tensor]:
        if self._read is None:
            return super().prepare_model_outputs(
                output, output_args, micro_batch, logits_processor_func
            )
        temperature_T = output_args["temperature_rmpad"][self._read]
        logits_TV = output.logits[0]
        scores = None
        if self._thoughts is not None:
            at = self._thoughts.positions(self._thoughts.response_starts)
            scores = self._thought_scores(output.logits, at, micro_batch)
        found = {}
        truncation = tu.get_non_tensor_data(micro_batch, key=TRUNCATION_KEY, default=None)
        if truncation is not None:
            found[LOG_MASS_FIELD] = log_mass(logits_TV, temperature_T, Truncation(*truncation))
        if not output_args["temperature_is_one"]:
            logits_TV = logits_TV / temperature_T.clamp(min=1e-8).to(logits_TV.dtype)[:, None]
        labels_T = output_args["input_ids_rmpad_rolled"][self._read]
        found["log_probs"] = label_log_probs(logits_TV, labels_T)
        if tu.get_non_tensor_data(micro_batch, key="calculate_entropy", default=False):
            found["entropy"] = self.compute_entropy_from_logits(logits_TV)
        offsets = micro_batch["input_ids"].offsets()
        found = {name: self._in_place(values, offsets) for name, values in found.items()}
        self._put_thoughts(found, scores, micro_batch)
        return found

    def _in_place(self, values_T: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Values at the positions read, 0 at others: nested [B, T]."""
        whole = values_T.new_zeros(int(offsets[-1])).index_copy(0, self._read, values_T)
        return torch.nested.nested_tensor_from_jagged(whole, offsets)


def read_positions(micro_batch: TensorDict) -> torch.Tensor:
    """Of a packed micro-batch, the positions whose log-probs verl reads: int64 [T].

    They predict the tokens of the responses: each lies one before its token.
    """
    ends = micro_batch["input_ids"].offsets()[1:].tolist()
    responses = micro_batch["responses"].offsets().diff().tolist()
    spans = [torch.arange(end - n - 1, end - 1) for end, n in zip(ends, responses, strict=True)]
    return torch.cat(spans)


EngineRegistry.register("language_model", ["fsdp", "fsdp2"], "cpu")(CpuSoftPromptFSDPEngine)
