"""Which model runner of vLLM serves rollouts with soft prompts, and what the second holds on a GPU.

V1 keeps prompts of embeddings in host memory. V2 copies each request's, a row for every token
though L count, to the GPU when it arrives and holds it there until it ends, outside the memory
that `gpu_memory_utilization` shares out (`V2_FILE`). The pinned versions, 0.24.0 and 0.28.0, have
no such file: V2 refuses prompt embeddings, and vLLM takes V1 for them unless told otherwise. vLLM
0.29.0 has it, and V2 is the default for all models there. `SoftPromptWorker` draws the rows before
either runner sees a request, so that V2 too gets rows and no records, but all T of them.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions, rollout_dtype

logger = logging.getLogger(__name__)

#: What decides, in vLLM's processes: 0 or 1; vLLM chooses if it is not set.
VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"

#: Of a vLLM whose V2 takes prompt embeddings (vllm-project/vllm#42963); within its package.
V2_FILE = "v1/worker/gpu/model_states/prompt_embeds.py"

_TO_V1 = f"""'+ray_kwargs.ray_init.runtime_env.env_vars.{VARIABLE}="0"'"""
_GIB = 1 << 30


def v2_takes_prompt_embeds() -> bool:
    """Whether the installed vLLM has `V2_FILE`; found without importing it."""
    spec = find_spec("vllm")
    folders = spec.submodule_search_locations if spec else None
    return any((Path(folder) / V2_FILE).is_file() for folder in folders or ())


def serves_with_v2(config: DictConfig) -> bool:
    """Whether rollouts with soft prompts get V2.

    Raises:
        ConfigError: If V2 is asked for and takes no prompt embeddings, or the variable is neither
            0 nor 1: vLLM would say so minutes later.
    """
    rollout = config.actor_rollout_ref.rollout
    embeds = rollout.engine_kwargs.vllm.enable_prompt_embeds
    if embeds is None:
        embeds = RspOptions.from_config(config.rsp).enabled
    if not embeds:
        return False
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    asked = variables.get(VARIABLE, os.environ.get(VARIABLE))
    if asked not in (None, "0", "1"):
        raise ConfigError(f"{VARIABLE}={asked!r} is neither 0 nor 1; unset it")
    if v2_takes_prompt_embeds():
        return asked != "0"
    if asked == "1":
        raise ConfigError(
            f"{VARIABLE}=1, but the V2 model runner of vLLM {_installed()} does not take prompt "
            "embeddings, which soft prompts are sent as; unset it"
        )
    return False


def _installed() -> str:
    try:
        return version("vllm")
    except PackageNotFoundError:
        return "(unknown version)"


def held_prompt_bytes(config: DictConfig, hidden_size: int) -> int:
    """What V2 holds on each GPU: T x d numbers of the rollout's dtype for each of `max_num_seqs`.

    T is the longest prompt; in an agent loop of several turns a prompt is what was said so far.
    Each tensor-parallel rank holds whole rows.

    Args:
        config: The composed config, `rollout.prompt_length` set.
        hidden_size: d.
    """
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
    rollout = config.actor_rollout_ref.rollout
    held = held_prompt_bytes(config, hidden_size)
    what = (
        f"vLLM {_installed()}'s V2 model runner holds the prompts of "
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
            f"choose V1, which keeps them in host memory: {_TO_V1}"
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
