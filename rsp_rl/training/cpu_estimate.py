"""What a training on a CPU will cost: memory by arithmetic, seconds a step by a short measurement.

Memory is that of all processes together, as they share the machine's. The measurement is of plain
PyTorch with the model itself, on all processors: the floor of what the actor does, and near what
vLLM does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from rsp_rl.models.shape import ModelShape
from rsp_rl.training.estimate import StepArithmetic

#: Processes of verl, Ray and vLLM, most of whose pages are shared: measured on the tiny model.
OVERHEAD = 4 << 30

#: Tokens of the packs that are timed.
_PACK = 512
_FP32 = 4


@dataclass(frozen=True)
class CpuMemory:
    """Bytes of a run's processes at their peak, which is the update.

    Attributes:
        training: fp32 weights, gradients and AdamW's moments.
        copies: Weights and gradients in the dtype of the computation, gathered by FSDP.
        activations: Of a micro-batch, with its logits.
        vllm: vLLM's weights, and a copy packed for its kernels.
        kv_cache: Keys and values.
        object_store: Ray's.
    """

    training: int
    copies: int
    activations: int
    vllm: int
    kv_cache: int
    object_store: int

    def parts(self) -> dict[str, int]:
        """Each by its name, `OVERHEAD` too."""
        return {
            "fp32 weights, gradients, AdamW": self.training,
            "gathered weights and gradients": self.copies,
            "activations and logits": self.activations,
            "vLLM's weights, twice": self.vllm,
            "KV cache": self.kv_cache,
            "Ray's object store": self.object_store,
            "processes (assumed)": OVERHEAD,
        }

    @property
    def total(self) -> int:
        """Of all parts."""
        return sum(self.parts().values())


def cpu_memory(config: DictConfig, shape: ModelShape, kv_cache: int) -> CpuMemory:
    """Estimate the memory of a run on this machine.

    Without gradient checkpointing a layer keeps 10 d + 2 kv + 4 f numbers a token, and the logits
    (half the tokens of a micro-batch are taken for responses) are there twice.

    Args:
        config: The composed config.
        shape: The model's.
        kv_cache: Bytes of vLLM's.
    """
    actor = config.actor_rollout_ref.actor
    number = 2 if actor.fsdp_config.mixed_precision.param_dtype == "bf16" else _FP32
    tokens = actor.ppo_max_token_len_per_gpu
    a_layer = 10 * shape.hidden_size + 2 * shape.kv_size + 4 * shape.intermediate_size
    activations = tokens * (a_layer * shape.layers + shape.vocab_size) * number
    rollout = 2 if config.actor_rollout_ref.rollout.dtype == "bfloat16" else _FP32
    ranks = config.trainer.n_gpus_per_node
    return CpuMemory(
        training=16 * shape.parameters,
        copies=2 * number * shape.parameters * ranks,
        activations=activations * ranks,
        vllm=2 * rollout * shape.parameters * ranks,
        kv_cache=kv_cache * ranks,
        object_store=config.ray_kwargs.ray_init.object_store_memory or 0,
    )


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of a step's phases, at most: every response as long as it may be.

    Attributes:
        rollout: Prompts, then a token of all rollouts at a time.
        old_log_prob: A forward over all tokens.
        update: A forward and a backward over all tokens.
    """

    rollout: float
    old_log_prob: float
    update: float

    @property
    def total(self) -> float:
        """A step's."""
        return self.rollout + self.old_log_prob + self.update


def measure_step(
    config: DictConfig, folder: Path, step: StepArithmetic, threads: int
) -> StepSeconds:
    """Time the model on this machine, for about a minute.

    Args:
        config: The composed config, sizes filled in.
        folder: The model's.
        step: The step's numbers.
        threads: Of the kernels.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    rollout = config.actor_rollout_ref.rollout
    param = config.actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype
    dtypes = {"bf16": torch.bfloat16, "bfloat16": torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtypes.get(param, torch.float32))
    vocabulary = model.config.get_text_config().vocab_size

    def forward(rows: int, length: int) -> torch.Tensor:
        ids = torch.randint(vocabulary, (rows, length))
        return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits

    rows = max(1, _PACK // step.max_sequence)
    length = step.max_sequence
    with torch.no_grad():
        a_pack = _seconds(lambda: forward(rows, length))
        a_token_each = _seconds(lambda: forward(step.rollouts, 1))
    update = _seconds(lambda: forward(rows, length).float().logsumexp(-1).sum().backward())
    packs = step.rollouts / rows
    prompts = packs * a_pack * rollout.prompt_length / length
    return StepSeconds(
        rollout=prompts + rollout.response_length * a_token_each,
        old_log_prob=packs * a_pack,
        update=packs * update,
    )


def _seconds(work: Callable[[], object]) -> float:
    """Of one call after another that warms up; the faster of two, for the machine may be busy."""
    work()
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)
