"""`python -m rsp_rl.training.cpu_dry_run [--config-name real_cpu] [overrides]`: a run on a CPU.

Checks everything that a start checks, model and data included, and prints the settings, the memory
of all processes beside what the machine has, and the seconds of a step, timed with the model itself
for about a minute. Starts nothing and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError, KnownError
from rsp_rl.dials.options import RspOptions
from rsp_rl.models.shape import ModelShape, model_shape
from rsp_rl.training.configs import compose_config
from rsp_rl.training.cpu_estimate import CpuMemory, StepSeconds, cpu_memory, measure_step
from rsp_rl.training.cpu_sizes import GIB, KV_CACHE, threads_of
from rsp_rl.training.dry_run import settings_lines, soft_prompt_lines, step_lines
from rsp_rl.training.estimate import step_arithmetic
from rsp_rl.training.preparation import prepare
from rsp_rl.training.thoughts import law_lines


def report(config: DictConfig) -> Iterator[str]:
    """The lines of a dry run.

    Args:
        config: The composed config of a CPU run; filled in by `prepare`.

    Raises:
        KnownError: For what would be refused at the start.
    """
    if config.trainer.device != "cpu":
        raise ConfigError(
            "this dry run is for CPUs; that for GPUs is python -m rsp_rl.training.dry_run"
        )
    prepare(config)
    yield "\n# settings"
    yield from settings_lines(config)
    step = step_arithmetic(config)
    yield "\n# step"
    yield from step_lines(config, step)
    shape = model_shape(config.actor_rollout_ref.model.path)
    kv_cache = int(config.ray_kwargs.ray_init.runtime_env.env_vars.get(KV_CACHE, 1)) * GIB
    yield "\n# memory of all processes, GiB (estimated from shapes)"
    yield from _memory_lines(cpu_memory(config, shape, kv_cache), shape)
    yield "\n# random soft prompts"
    options = RspOptions.from_config(config.rsp)
    extra = config.actor_rollout_ref.rollout.prompt_length - config.data.max_prompt_length
    yield from soft_prompt_lines(options, step, shape, extra)
    yield from law_lines(config, shape)
    yield "\n# seconds of a step at most (plain PyTorch with this model, timed now)"
    threads = threads_of(config)
    folder = Path(config.actor_rollout_ref.model.path)
    yield from _seconds_lines(measure_step(config, folder, step, threads), step.steps, threads)


def _memory_lines(memory: CpuMemory, shape: ModelShape) -> Iterator[str]:
    yield f"parameters of the model: {shape.parameters / 1e6:.0f} million"
    for part, size in memory.parts().items():
        yield f"{part}: {size / GIB:.1f}"
    machine = psutil.virtual_memory()
    verdict = "fits" if memory.total <= machine.available else "DOES NOT FIT"
    yield (
        f"total: {memory.total / GIB:.1f}; available: {machine.available / GIB:.1f} of "
        f"{machine.total / GIB:.1f}: {verdict}"
    )
    if memory.total > machine.available:
        yield (
            "to make it fit: a smaller ppo_max_token_len_per_gpu (activations), fewer rollouts "
            "(KV cache), or actor_rollout_ref.model.enable_gradient_checkpointing=true"
        )


def _seconds_lines(seconds: StepSeconds, steps: int, threads: int) -> Iterator[str]:
    yield f"threads: {threads}"
    yield f"rollout: {seconds.rollout:.0f}"
    yield f"old log-probs: {seconds.old_log_prob:.0f}"
    yield f"update: {seconds.update:.0f}"
    yield f"step: {seconds.total:.0f}; run of {steps} steps: {steps * seconds.total / 60:.0f} min"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; a known error ends with one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m rsp_rl.training.cpu_dry_run")
    parser.add_argument("--config-name", default="real_cpu")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, as for rsp-rl train")
    args = parser.parse_args(argv)
    command = ["rsp-rl", "train", "--config-name", args.config_name, *args.overrides]
    print(shlex.join(command))
    try:
        with TemporaryDirectory() as folder:
            config = compose_config(args.config_name, [*args.overrides, f"run_dir={folder}/run"])
            for line in report(config):
                print(line, flush=True)
    except KnownError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
