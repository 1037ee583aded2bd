"""vLLM's CPU worker, able to take new weights.

Patch: vLLM's CPU target packs each Linear weight for oneDNN and then deletes the original, so that
a weight sync finds nothing to load into ("'Parameter' object has no attribute 'weight_loader'").
Keeping the originals costs one copy of the Linear weights and lets verl's sync, which packs anew
after loading, do the rest.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from vllm.model_executor.layers import utils as layer_utils


def keep_unpacked_weights() -> None:
    """Make `dispatch_cpu_unquantized_gemm` pack without deleting; harmless when called twice."""
    original = layer_utils.dispatch_cpu_unquantized_gemm
    if getattr(original, "keeps_unpacked_weights", False):
        return

    def pack(layer: torch.nn.Module, remove_weight: bool) -> None:
        original(layer, remove_weight=False)

    pack.keeps_unpacked_weights = True
    layer_utils.dispatch_cpu_unquantized_gemm = pack


class CpuRolloutWorkerExtension(vLLMColocateWorkerExtension):
    """verl's worker extension with the patch in place before the model is loaded."""

    def __new__(cls, **kwargs: Any) -> CpuRolloutWorkerExtension:
        keep_unpacked_weights()
        return super().__new__(cls, **kwargs)
