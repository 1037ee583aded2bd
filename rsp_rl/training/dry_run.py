"""`python -m rsp_rl.training.dry_run --config-name dapo_rsp [overrides]`: what a run would be.

Prints the command, the settings that matter, the arithmetic of a step, the memory of a GPU and
whether it fits, and what soft prompts cost. Checks what can be checked without model and data.
Needs no GPU and no network, starts nothing and writes nothing.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence

from omegaconf import DictConfig, OmegaConf, open_dict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.models.shape import ModelShape, model_shape
from rsp_rl.placement.prompt import INFIX_DESCRIPTION
from rsp_rl.training.asynchronous import check_asynchronous
from rsp_rl.training.configs import compose_config
from rsp_rl.training.cpus import cpus_needed
from rsp_rl.training.estimate import (
    GIB,
    OVERHEAD,
    GpuMemory,
    StepArithmetic,
    checkpoint_bytes,
    gpu_memory,
    soft_prompt_costs,
    step_arithmetic,
)
from rsp_rl.training.fitted_sizes import fit_context
from rsp_rl.training.model_runner import check_held_prompts
from rsp_rl.training.preflight import (
    check_adds,
    check_batches,
    check_guard_support,
    check_lengths,
    check_mixing,
    check_quantization,
    check_rsp_support,
    check_servers,
    check_token_budgets,
)
from rsp_rl.training.self_defeating import (
    check_groups,
    check_overlong,
    check_saving,
    check_updates,
    check_validation,
)
from rsp_rl.training.setting_ranges import check_ranges
from rsp_rl.training.setting_types import check_types
from rsp_rl.training.thoughts import check_law, law_lines

#: The settings that make the run what it is: all of the paper's Table 12, and the machine's.
SHOWN = (
    "run_dir",
    "algorithm.adv_estimator",
    "algorithm.norm_adv_by_std_in_grpo",
    "algorithm.use_kl_in_reward",
    "algorithm.filter_groups.enable",
    "algorithm.rollout_correction",
    "data.train_files",
    "data.val_files",
    "data.train_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "data.seed",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.model.enable_gradient_checkpointing",
    "actor_rollout_ref.actor.strategy",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.clip_ratio_c",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.actor.use_dynamic_bsz",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu",
    "actor_rollout_ref.actor.ulysses_sequence_parallel_size",
    "actor_rollout_ref.actor.fsdp_config.offload_policy",
    "actor_rollout_ref.actor.fsdp_config.param_offload",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
    "actor_rollout_ref.actor.optim.optimizer",
    "actor_rollout_ref.actor.optim.optimizer_impl",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.optim.lr_scheduler_type",
    "actor_rollout_ref.actor.optim.lr_warmup_steps",
    "actor_rollout_ref.actor.optim.weight_decay",
    "actor_rollout_ref.actor.optim.clip_grad",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.rollout.top_p",
    "actor_rollout_ref.rollout.top_k",
    "actor_rollout_ref.rollout.dtype",
    "actor_rollout_ref.rollout.quantization",
    "actor_rollout_ref.rollout.prompt_length",
    "actor_rollout_ref.rollout.logprobs_mode",
    "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "trainer.nnodes",
    "trainer.n_gpus_per_node",
    "trainer.total_training_steps",
    "trainer.save_freq",
    "trainer.test_freq",
    "trainer.max_actor_ckpt_to_keep",
    "rsp",
)


def report(config: DictConfig, gpu_bytes: int) -> Iterator[str]:
    """The lines of a dry run, `rollout.prompt_length` filled in on the way.

    Args:
        config: The composed config.
        gpu_bytes: Memory of one GPU.

    Raises:
        ConfigError: For what can be refused without model and data.
    """
    check_types(config)
    check_ranges(config)
    options = RspOptions.from_config(config.rsp)
    check_guard_support(config)
    check_asynchronous(config)
    check_servers(config)
    if options.enabled:
        check_rsp_support(config)
        check_adds(config, options)
    check_law(config)
    check_batches(config)
    check_mixing(options, config.actor_rollout_ref.rollout.n)
    for check in (check_groups, check_overlong, check_updates, check_saving):
        check(config)
    check_validation(config, options)
    shape = model_shape(config.actor_rollout_ref.model.path)
    extra = _extra_tokens(options)
    rollout = config.actor_rollout_ref.rollout
    if config.data.max_prompt_length is None:
        raise ConfigError(
            "data.max_prompt_length is not set: it would be the longest prompt of the data, which "
            "a dry run does not read; set it"
        )
    if rollout.prompt_length is None:
        with open_dict(config):
            rollout.prompt_length = config.data.max_prompt_length + extra
    check_lengths(config, shape, extra)
    check_token_budgets(config)
    check_quantization(config, shape)
    fit_context(config)
    check_held_prompts(config, shape.hidden_size, gpu_bytes)
    arithmetic = step_arithmetic(config)
    memory = gpu_memory(config, shape, gpu_bytes)

    yield "\n# settings"
    yield from settings_lines(config)
    yield "\n# step"
    yield from step_lines(config, arithmetic)
    yield "\n# memory of one GPU, GiB (estimated from shapes, not measured; see docs/memory.md)"
    yield from _memory_lines(config, shape, memory, arithmetic, gpu_bytes)
    yield "\n# disk"
    yield from _disk_lines(config, shape)
    yield "\n# random soft prompts"
    yield from soft_prompt_lines(options, arithmetic, shape, extra)
    yield from law_lines(config, shape)


def settings_lines(config: DictConfig) -> Iterator[str]:
    """Each of `SHOWN` with its value."""
    for name in SHOWN:
        value = OmegaConf.select(config, name)
        if isinstance(value, DictConfig):
            value = OmegaConf.to_container(value, resolve=True)
        yield f"{name}: {value}"


def _extra_tokens(options: RspOptions) -> int:
    """Tokens that a soft prompt adds; without a tokenizer, generously for infix's description."""
    if options.position != "infix" or not options.enabled:
        return options.max_length
    return options.max_length + len(INFIX_DESCRIPTION.format(length=options.max_length)) // 3


def step_lines(config: DictConfig, step: StepArithmetic) -> Iterator[str]:
    """What a step and the run consist of."""
    group = config.actor_rollout_ref.rollout.n
    yield f"rollouts: {step.prompts} prompts x {group} = {step.rollouts}"
    yield f"updates: {step.updates} mini-batches of {step.mini_batch} rollouts"
    yield f"rollouts a data-parallel rank and update: {step.rollouts_per_rank}"
    yield f"data-parallel ranks: {step.data_parallel}, vLLM engines: {step.rollout_engines}"
    yield f"CPUs that Ray must have in all: {cpus_needed(config)}"
    yield f"longest sequence: {step.max_sequence} tokens"
    yield f"generated tokens: at most {step.max_tokens:,} a step"
    yield (
        f"run of {step.steps} steps: {step.steps * step.prompts:,} prompts, "
        f"{step.steps * step.rollouts:,} rollouts, {step.steps * step.updates} updates"
    )


def _memory_lines(
    config: DictConfig,
    shape: ModelShape,
    memory: GpuMemory,
    step: StepArithmetic,
    gpu_bytes: int,
) -> Iterator[str]:
    yield f"parameters of the model: {shape.parameters / 1e9:.2f} billion"
    for title, parts, total in (
        (
            "update",
            {
                "fp32 weights": memory.parameters,
                "fp32 gradients": memory.gradients,
                "AdamW moments": memory.optimizer,
                "gathered by FSDP": memory.gathered,
                "activations": memory.activations,
                "logits": memory.logits,
                "overhead (assumed)": OVERHEAD,
            },
            memory.update,
        ),
        (
            "rollout",
            {
                "vLLM weights": memory.vllm_weights,
                "KV cache": memory.kv_cache,
                **_held_prompts(memory),
                "actor's shards at rest": memory.resident_at_rollout,
                "overhead (assumed)": OVERHEAD,
            },
            memory.rollout,
        ),
    ):
        for part, size in parts.items():
            yield f"{title}, {part}: {size / GIB:.1f}"
        verdict = "fits" if total <= gpu_bytes else "DOES NOT FIT"
        yield f"{title}, total: {total / GIB:.1f} of {gpu_bytes / GIB:.0f}: {verdict}"
    engine = memory.kv_cache * config.actor_rollout_ref.rollout.tensor_model_parallel_size
    longest = engine // (shape.kv_bytes_per_token * step.max_sequence)
    yield f"longest sequences in a vLLM engine's KV cache at once: {longest}"
    yield f"host memory for one GPU: {memory.host / GIB:.1f}"
    if max(memory.update, memory.rollout) > gpu_bytes:
        yield (
            "to make it fit: OFFLOAD=true (rollout), a smaller MAX_TOKENS_PER_GPU (update), "
            "LOW_MEMORY=1 (both), or more GPUs"
        )


def _held_prompts(memory: GpuMemory) -> dict[str, int]:
    """A line where vLLM's V2 model runner holds them, else none."""
    return {"prompts as embeddings": memory.held_prompts} if memory.held_prompts else {}


def _disk_lines(config: DictConfig, shape: ModelShape) -> Iterator[str]:
    trainer = config.trainer
    size = checkpoint_bytes(shape)
    saved = trainer.total_training_steps // trainer.save_freq if trainer.save_freq > 0 else 0
    keep = trainer.max_actor_ckpt_to_keep or 0
    kept = min(saved, keep) if keep > 0 else saved
    room = f"checkpoints: {kept} of {size / GIB:.0f} GiB each = {kept * size / GIB:.0f} GiB"
    yield room + (", and one more while the next is saved" if kept < saved else "")


def soft_prompt_lines(
    options: RspOptions, step: StepArithmetic, shape: ModelShape, extra: int
) -> Iterator[str]:
    if not options.enabled:
        yield "off"
        return
    if options.adds:
        largest = options.scale_schedule.largest(options.scale)
        yield (
            f"law: {options.law}, alpha at most {largest:g}, on the question's own tokens, "
            f"{options.share:.0%} of the rollouts; nothing is inserted"
        )
        return
    costs = soft_prompt_costs(options, step, shape.hidden_size, extra)
    yield f"law: {options.law}, L at most {options.max_length}, {options.share:.0%} of the rollouts"
    yield f"draws: {costs.draws_per_step} a step, {costs.draws_per_step * step.steps:,} a run"
    yield f"bytes: {costs.bytes_per_draw:,} a draw, {costs.record_bytes} of record a sample"
    yield (
        f"extra prompt tokens: {extra} a rollout ({costs.share_of_longest:.2%} of the longest "
        f"sequence), {costs.extra_tokens_per_step:,} a step"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; a known error ends with one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m rsp_rl.training.dry_run")
    parser.add_argument("--config-name", default="dapo_rsp")
    parser.add_argument("--gpu-memory-gb", type=float, default=80, help="of one GPU; default: 80")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides, as for rsp_rl.training.train"
    )
    args = parser.parse_args(argv)
    command = [
        "python",
        "-m",
        "rsp_rl.training.train",
        "--config-name",
        args.config_name,
        *args.overrides,
    ]
    print(shlex.join(command))
    try:
        if args.gpu_memory_gb <= 0:
            raise ConfigError(f"GPU memory of {args.gpu_memory_gb} GiB must be above 0")
        config = compose_config(args.config_name, args.overrides)
        for line in report(config, int(args.gpu_memory_gb * GIB)):
            print(line)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
