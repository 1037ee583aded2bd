"""What a training config will cost, by arithmetic: steps, GPU memory, soft prompts. Needs no GPU.

The memory is that of verl's hybrid engine, in which actor and vLLM take turns on the same GPUs, so
that two moments count: *update* (vLLM asleep) and *rollout* (the actor's shards at rest beside
vLLM). It is an estimate from tensor shapes; `OVERHEAD` and the activation counts are the uncertain
part. What it was held against is in docs/memory.md; no measurement of ours on a GPU is among it.

Legend: P parameters, R FSDP ranks of a shard group, T tokens of a packed micro-batch on one GPU, V
vocabulary, d hidden size, kv key/value width (heads x head size), f feed-forward width. All sizes
in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.record import RECORD_SIZE
from rsp_rl.models.shape import BF16_BYTES, ModelShape
from rsp_rl.training.model_runner import held_prompt_bytes, serves_with_v2

GIB = 1 << 30

#: CUDA contexts of two processes, NCCL, CUDA graphs, fragmentation: an assumption.
OVERHEAD = 6 * GIB

#: Bytes a parameter: fp32 master weight, fp32 gradient, AdamW's two fp32 moments.
_MASTER, _GRADIENT, _MOMENTS = 4, 4, 8
_FP32_BYTES, _FP8_BYTES = 4, 1

#: `SoftPromptRecord` as a tensor of int64.
_RECORD_BYTES = RECORD_SIZE * 8


@dataclass(frozen=True)
class StepArithmetic:
    """Numbers of one training step, and of the run.

    Attributes:
        prompts: Prompts a step.
        rollouts: Rollouts a step.
        mini_batch: Rollouts a mini-batch.
        updates: Optimiser updates a step.
        rollouts_per_rank: Rollouts that one data-parallel rank trains on in an update.
        max_tokens: Most tokens that a step can generate.
        max_sequence: Longest sequence, soft prompt included.
        steps: Steps of the run.
        data_parallel: FSDP ranks over Ulysses size.
        rollout_engines: vLLM replicas.
    """

    prompts: int
    rollouts: int
    mini_batch: int
    updates: int
    rollouts_per_rank: int
    max_tokens: int
    max_sequence: int
    steps: int
    data_parallel: int
    rollout_engines: int


def step_arithmetic(config: DictConfig) -> StepArithmetic:
    """Work out a step of a config that passed `rsp_rl.training.preflight.check_batches`.

    Args:
        config: The composed config, `rollout.prompt_length` set.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    prompts, rollouts = config.data.train_batch_size, config.data.train_batch_size * rollout.n
    mini_batch = actor.ppo_mini_batch_size * rollout.n
    data_parallel = gpus // actor.ulysses_sequence_parallel_size
    return StepArithmetic(
        prompts=prompts,
        rollouts=rollouts,
        mini_batch=mini_batch,
        updates=actor.ppo_epochs * prompts // actor.ppo_mini_batch_size,
        rollouts_per_rank=mini_batch // data_parallel,
        max_tokens=rollouts * rollout.response_length,
        max_sequence=rollout.prompt_length + rollout.response_length,
        steps=config.trainer.total_training_steps,
        data_parallel=data_parallel,
        rollout_engines=gpus // rollout.tensor_model_parallel_size,
    )


@dataclass(frozen=True)
class GpuMemory:
    """Bytes on one GPU, at the two moments that count; zero where it lies in host memory.

    Attributes:
        parameters: fp32 master weights, a rank's shard.
        gradients: fp32 gradients (update): a rank's shard, or all of them where verl defers their
            reduction to the last micro-batch.
        optimizer: AdamW's moments, a rank's shard.
        gathered: bf16 weights that FSDP has gathered, and gradients not yet reduced (update).
        activations: Kept at layer borders and within the layer at work (update).
        logits: Logits, their gradient and an fp32 working copy (update).
        vllm_weights: Weights of a tensor-parallel rank (rollout).
        kv_cache: What is left of vLLM's share for keys and values (rollout).
        held_prompts: Prompts as embeddings, which vLLM's V2 model runner holds (rollout).
        resident_at_rollout: The actor's shards that stay on the GPU beside vLLM.
        host: Bytes in host memory for one GPU.
    """

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    logits: int
    vllm_weights: int
    kv_cache: int
    held_prompts: int
    resident_at_rollout: int
    host: int

    @property
    def update(self) -> int:
        """Peak while the actor is updated."""
        shards = self.parameters + self.gradients + self.optimizer
        return shards + self.gathered + self.activations + self.logits + OVERHEAD

    @property
    def rollout(self) -> int:
        """Peak while vLLM generates."""
        vllm = self.vllm_weights + self.kv_cache + self.held_prompts
        return vllm + self.resident_at_rollout + OVERHEAD


@dataclass(frozen=True)
class _Moment:
    """What an update needs beside the shards, at one moment; see `GpuMemory`."""

    gathered: int
    activations: int
    logits: int = 0

    @property
    def total(self) -> int:
        return self.gathered + self.activations + self.logits


def _update_peak(config: DictConfig, shape: ModelShape) -> _Moment:
    """The largest moment of a micro-batch's backward; they do not coincide.

    verl's FSDP2 (`verl.utils.fsdp_utils.apply_fsdp2`) makes a unit of each layer and, unless they
    are tied, of embedding and output projection. Otherwise both are in the root, which stays
    gathered, and whose gradient waits, until the backward has ended. Gradient checkpointing keeps d
    bf16 numbers a token and layer border, and within one layer 8 d + 2 kv + 4 f (norms, q,
    attention and feed-forward outputs; k, v; gate, up, their product and its activation); without
    it every layer keeps the latter.

    - The output projection's own backward: its weights and their gradient in bf16, two layers (one
      is fetched ahead), and the logits: bf16, their bf16 gradient, and fp32 once, 8 V bytes a
      token.
    - The reduction of that gradient, in bf16 and fp32: the logits are gone.
    - A layer's backward: two layers, one's gradient in bf16 and fp32, its activations.
    """
    actor = config.actor_rollout_ref.actor
    tokens, layer = actor.ppo_max_token_len_per_gpu, shape.layer_parameters
    in_root = shape.tied or actor.strategy == "fsdp"
    head = shape.root_parameters if in_root else shape.embedding_parameters
    head_weights = head_gradient = BF16_BYTES * head
    weights = BF16_BYTES * 2 * layer
    waiting = head_weights + head_gradient if in_root else 0
    if not actor.fsdp_config.reshard_after_forward:
        weights = BF16_BYTES * (shape.parameters - head)
        waiting = max(waiting, head_weights)

    within = BF16_BYTES * (8 * shape.hidden_size + 2 * shape.kv_size + 4 * shape.intermediate_size)
    kept = tokens * shape.layers * BF16_BYTES * shape.hidden_size
    at_work = kept + tokens * within
    if not config.actor_rollout_ref.model.enable_gradient_checkpointing:
        kept = at_work = tokens * shape.layers * within
    reduced = BF16_BYTES + _FP32_BYTES
    moments = (
        _Moment(
            gathered=weights + head_weights + head_gradient,
            activations=kept,
            logits=tokens * shape.vocab_size * (2 * BF16_BYTES + _FP32_BYTES),
        ),
        _Moment(gathered=weights + reduced * head, activations=0 if in_root else kept),
        _Moment(gathered=weights + reduced * layer + waiting, activations=at_work),
    )
    return max(moments, key=lambda moment: moment.total)


def gpu_memory(config: DictConfig, shape: ModelShape, gpu_bytes: int) -> GpuMemory:
    """Estimate the memory of one GPU of a full (not LoRA) run with bf16 compute.

    Update: 16 P / R bytes of shards, unless the CPU offload policy keeps them in host memory, and
    what `_update_peak` adds. With `use_no_sync_for_gradient_accumulation` FSDP2 keeps every
    gradient unsharded in fp32 until the last micro-batch: 4 P bytes in place of 4 P / R.

    Rollout: vLLM takes `gpu_memory_utilization` of the GPU for weights (bf16; with fp8 the layers'
    in one byte, and scales of a thousandth of that) and key/value cache, and beside it what its V2
    model runner holds (`rsp_rl.training.model_runner`).

    Args:
        config: The composed config, with V2 `rollout.prompt_length` set.
        shape: The model's shape.
        gpu_bytes: Memory of one GPU.

    Raises:
        ConfigError: If vLLM's share does not even hold the weights.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    fsdp = actor.fsdp_config
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    if 0 < fsdp.fsdp_size < ranks:
        ranks = fsdp.fsdp_size  # groups of so many ranks hold a copy each
    on_host = bool(fsdp.offload_policy)
    master, gradients, moments = (
        shape.parameters * size // ranks for size in (_MASTER, _GRADIENT, _MOMENTS)
    )
    on_gpu = 0 if on_host else gradients
    if fsdp.use_no_sync_for_gradient_accumulation:
        on_gpu = shape.parameters * _GRADIENT
    peak = _update_peak(config, shape)

    in_layers = _FP8_BYTES if rollout.quantization == "fp8" else BF16_BYTES
    weights = in_layers * shape.layers * shape.layer_parameters + BF16_BYTES * shape.root_parameters
    weights //= rollout.tensor_model_parallel_size
    share = int(rollout.gpu_memory_utilization * gpu_bytes)
    if share <= weights:
        raise ConfigError(
            f"actor_rollout_ref.rollout.gpu_memory_utilization={rollout.gpu_memory_utilization} of "
            f"{gpu_bytes / GIB:.0f} GiB does not hold vLLM's weights ({weights / GIB:.1f} GiB a "
            "GPU); raise it, or rollout.tensor_model_parallel_size"
        )
    offloaded = (
        master * bool(on_host or fsdp.param_offload),
        moments * bool(on_host or fsdp.optimizer_offload),
    )
    return GpuMemory(
        parameters=0 if on_host else master,
        gradients=on_gpu,
        optimizer=0 if on_host else moments,
        gathered=peak.gathered,
        activations=peak.activations,
        logits=peak.logits,
        vllm_weights=weights,
        kv_cache=share - weights,
        held_prompts=held_prompt_bytes(config, shape.hidden_size) if serves_with_v2(config) else 0,
        resident_at_rollout=master + moments - sum(offloaded),
        host=sum(offloaded) + (gradients if on_host else 0),
    )


def checkpoint_bytes(shape: ModelShape) -> int:
    """One checkpoint of verl: fp32 weights and AdamW's moments, 12 bytes a parameter."""
    return shape.parameters * (_MASTER + _MOMENTS)


@dataclass(frozen=True)
class SoftPromptCosts:
    """What RSP adds, at the largest L of its schedule.

    Attributes:
        draws_per_step: Soft prompts a step, on average where not every rollout gets one; the actor
            draws each again for log-probs and update.
        bytes_per_draw: L x d numbers in the rollout's dtype.
        record_bytes: What travels with a sample instead of H.
        extra_tokens_per_step: Prompt tokens that soft prompts add to a step's rollouts.
        share_of_longest: Those of one rollout over its longest sequence.
    """

    draws_per_step: int
    bytes_per_draw: int
    record_bytes: int
    extra_tokens_per_step: int
    share_of_longest: float


def soft_prompt_costs(
    options: RspOptions, arithmetic: StepArithmetic, hidden_size: int, extra: int
) -> SoftPromptCosts:
    """Work out RSP's costs; all zero with RSP off.

    Args:
        options: The RSP options.
        arithmetic: The step.
        hidden_size: d.
        extra: Tokens that a soft prompt adds to a prompt.
    """
    draws = round(arithmetic.rollouts * options.share)
    return SoftPromptCosts(
        draws_per_step=draws,
        bytes_per_draw=options.max_length * hidden_size * BF16_BYTES,
        record_bytes=_RECORD_BYTES if options.enabled else 0,
        extra_tokens_per_step=extra * draws,
        share_of_longest=extra / arithmetic.max_sequence,
    )
