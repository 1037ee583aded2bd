"""What a CPU run takes from its model, its data and the machine: context, key/value cache, threads.

Each is filled in where the config leaves it open, and said.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.shape import kv_numbers_per_token
from rsp_rl.training.prompts import template_arguments
from rsp_rl.training.tools import Tools
from rsp_rl.training.train_data import CheckedFiles

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

GIB = 1 << 30

#: GiB that vLLM's CPU target keeps for keys and values, a whole number.
KV_CACHE = "VLLM_CPU_KVCACHE_SPACE"

#: Threads of each process's kernels. verl's actor and vLLM take turns.
THREADS = "OMP_NUM_THREADS"

#: vLLM's CPU target keeps keys and values in blocks of so many tokens.
_BLOCK = 128

#: Of a smaller model the kernels are done before a second thread has begun.
_THREADED_BYTES = 32 << 20

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def fit_prompt_length(
    config: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    checked: Sequence[CheckedFiles],
    tools: Tools,
) -> None:
    """Set an open `data.max_prompt_length` to the longest prompt of the data, in place.

    A prompt that the chat template refuses has none here; `check_prompts` speaks of it.

    Raises:
        ConfigError: If the data cannot be read here.
    """
    if config.data.max_prompt_length is not None:
        return
    if not checked:
        raise ConfigError(
            "data.max_prompt_length is not set, and data.custom_cls reads the data; set it"
        )
    arguments = template_arguments(config)
    longest = 1
    for files in checked:
        for _, _, row in files.rows():
            try:
                tokens = tokenizer.apply_chat_template(
                    row[config.data.prompt_key],
                    tools=tools.counted,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=False,
                    **arguments,
                )
            except Exception:  # a template may raise as it likes
                continue
            longest = max(longest, len(tokens))
    config.data.max_prompt_length = longest
    logger.info("data.max_prompt_length=%d, the longest prompt of the data", longest)


def fit_kv_cache(config: DictConfig, model: PretrainedConfig) -> None:
    """Room for the keys and values of a step's rollouts, in Ray's environment.

    A validation with more sequences has them wait for each other.

    Args:
        config: The composed config, `rollout.prompt_length` set.
        model: The model's config.
    """
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    if variables.get(KV_CACHE) or os.environ.get(KV_CACHE):
        return
    rollout = config.actor_rollout_ref.rollout
    engines = max(1, config.trainer.n_gpus_per_node // rollout.tensor_model_parallel_size)
    sequences = math.ceil(config.data.train_batch_size * rollout.n / engines)
    sequences = min(rollout.max_num_seqs, sequences)
    length = math.ceil((rollout.prompt_length + rollout.response_length) / _BLOCK) * _BLOCK
    size = kv_numbers_per_token(model) * _BYTES.get(str(rollout.dtype), 4) * length * sequences
    size //= rollout.tensor_model_parallel_size
    space = max(1, math.ceil(size / GIB))
    with open_dict(config):
        variables[KV_CACHE] = str(space)
    logger.info(
        "%s=%d GiB: keys and values of %d sequences of %d tokens",
        KV_CACHE,
        space,
        sequences,
        length,
    )


def fit_threads(config: DictConfig, folder: Path) -> None:
    """All processors for the kernels of a model that gains by it, in Ray's environment.

    Args:
        config: The composed config.
        folder: The model's folder.
    """
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    if variables.get(THREADS) or os.environ.get(THREADS):
        return
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if size < _THREADED_BYTES:
        return
    threads = max(1, len(os.sched_getaffinity(0)) // config.trainer.n_gpus_per_node)
    with open_dict(config):
        variables[THREADS] = str(threads)
    logger.info(
        "%s=%d a process: actor and vLLM take turns on this machine's processors", THREADS, threads
    )


def threads_of(config: DictConfig) -> int:
    """Threads of each process's kernels, as `fit_threads` or the user has them; else 1."""
    variables = config.ray_kwargs.ray_init.runtime_env.env_vars
    return int(variables.get(THREADS) or os.environ.get(THREADS) or 1)
