"""Which model runner of vLLM serves rollouts with soft prompts, and what the second holds on a GPU.

V1 keeps prompts of embeddings in host memory. V2, where it takes them
(`rsp_rl.injection.model_runner`), copies each request's, a row for every token though L count, to
the GPU when it arrives and holds it there until it ends, outside the memory that
`gpu_memory_utilization` shares out. `SoftPromptWorker` draws the rows before either runner sees a
request, so that V2 too gets rows and no records, but all T of them.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions, rollout_dtype
from rsp_rl.injection.model_runner import VARIABLE, installed, takes_v2

logger = logging.getLogger(__name__)

#: The setting that chooses V1.
TO_V1 = f"""'+ray_kwargs.ray_init.runtime_env.env_vars.{VARIABLE}="0"'"""
_GIB = 1 << 30


def serves_with_v2(config: DictConfig) -> bool:
    """Whether rollouts with soft prompts get V2.

    Raises:
        ConfigError: As `takes_v2`.
    """
    rollout = config.actor_rollout_ref.rollout
    embeds = rollout.engine_kwargs.vllm.enable_prompt_embeds
    if embeds is None:
        embeds = RspOptions.from_config(config.rsp).enabled
    if not embeds:
        return False
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    asked = variables.get(VARIABLE, os.environ.get(VARIABLE))
    return takes_v2(asked)


def held_prompt_bytes(config: DictConfig, hidden_size: int) -> int:
    """What V2 holds on each GPU: T x d numbers of the rollout's dtype for each of `max_num_seqs`.

    T is the longest prompt; in an agent loop of several turns a prompt is what was said so far.
    Each tensor-parallel rank holds whole rows. Of rows that are added to a prompt's tokens, and of
    thoughts without a soft prompt, V2 gets the tokens alone, and holds nothing.

    Args:
        config: The composed config, `rollout.prompt_length` set.
        hidden_size: d.
    """
    options = RspOptions.from_config(config.rsp)
    if options.adds or not options.enabled:
        return 0
    rollout = config.actor_rollout_ref.rollout
    return rollout.max_num_seqs * _bytes_a_request(config, hidden_size)


def _bytes_a_request(config: DictConfig, hidden_size: int) -> int:
    rollout = config.actor_rollout_ref.rollout
    tokens = rollout.prompt_length
    if rollout.agent.default_agent_loop != "single_turn_agent":
        tokens += rollout.response_length
    return tokens * hidden_size * (4 if rollout_dtype(rollout.dtype) == "float32" else 2)


def check_held_prompts(config: DictConfig, hidden_size: int, gpu_bytes: int | None) -> None:
    """Make sure that what V2 holds fits beside vLLM's share of a GPU; nothing with V1.

    Args:
        config: The composed config, `rollout.prompt_length` set.
        hidden_size: d.
        gpu_bytes: Memory of one GPU; None where none is seen, which leaves a warning.

    Raises:
        ConfigError: With the largest `max_num_seqs` that fits; as `serves_with_v2`.
    """
    if not serves_with_v2(config):
        return
    held = held_prompt_bytes(config, hidden_size)
    if not held:
        return
    rollout = config.actor_rollout_ref.rollout
    what = (
        f"vLLM {installed()}'s V2 model runner holds the prompts of "
        f"actor_rollout_ref.rollout.max_num_seqs={rollout.max_num_seqs} requests as embeddings, "
        f"{held / _GIB:.1f} GiB on each GPU"
    )
    if gpu_bytes is None:
        logger.warning(
            "%s, outside rollout.gpu_memory_utilization=%s; no GPU is seen from here to check that "
            "it fits",
            what,
            rollout.gpu_memory_utilization,
        )
        return
    left = gpu_bytes - int(rollout.gpu_memory_utilization * gpu_bytes)
    if held > left:
        raise ConfigError(
            f"{what}, and rollout.gpu_memory_utilization={rollout.gpu_memory_utilization} leaves "
            f"{left / _GIB:.1f}; set max_num_seqs to at most "
            f"{left // _bytes_a_request(config, hidden_size)}, lower gpu_memory_utilization, or "
            f"choose V1, which keeps them in host memory: {TO_V1}"
        )


def smallest_gpu_bytes() -> int | None:
    """Memory of the smallest GPU that this machine's `nvidia-smi` lists; None without any.

    torch would take a share of it to answer.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return None
    return min((int(size) << 20 for size in answer.stdout.split() if size.isdigit()), default=None)
