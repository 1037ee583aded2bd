"""What vLLM can think with: engines and requests that laws cannot serve are refused with a reason.

Before a request is sent, in the process that sends it; a worker looks at the engine once more.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import fields
from importlib import import_module
from typing import Any

from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams

from rsp_rl.basics.errors import ConfigError
from rsp_rl.injection.model_runner import VARIABLE, WORKER, installed
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.settings import Thinking
from rsp_rl.thoughts.table import MOST_GIB, position_bytes

#: By class its methods, and what they take beside `self`.
Interface = dict[str, dict[str, tuple[str, ...] | None]]

#: Methods of vLLM's model runners that `rsp_rl.injection.thinking_runner_v1` overrides, and what
#: they take, by class.
V1_TAKES: Interface = {
    "vllm.v1.worker.gpu_model_runner.GPUModelRunner": {
        "_update_states": ("scheduler_output",),
        "_preprocess": ("scheduler_output", "num_input_tokens", "intermediate_tensors"),
        "_sample": ("logits", "spec_decode_metadata"),
        "sample_tokens": ("grammar_output",),
    }
}

#: The same of `rsp_rl.injection.thinking_runner_v2`, with what it stands before in V2's objects; of
#: what is passed on as it comes no names are known.
V2_TAKES: Interface = {
    "vllm.v1.worker.gpu.model_runner.GPUModelRunner": {
        "load_model": None,
        "add_requests": ("scheduler_output",),
        "sample": ("hidden_states", "input_batch", "grammar_output"),
    },
    "vllm.v1.worker.gpu.model_states.default.DefaultModelState": {
        "prepare_inputs_embeds": ("scheduled_encoder_inputs", "input_batch", "req_states"),
    },
    "vllm.v1.worker.gpu.sample.sampler.Sampler": {
        "__call__": ("logits", "input_batch"),
        "get_logprobs_dims": ("idx_mapping_np", "include_token_ids"),
    },
}

#: Of V2's batch, what is read.
V2_BATCH = (
    "vllm.v1.worker.gpu.input_batch.InputBatch",
    (
        "idx_mapping_np",
        "logits_indices",
        "num_computed_tokens_np",
        "num_scheduled_tokens",
        "prefill_len_np",
        "query_start_loc_np",
        "req_ids",
    ),
)

#: Key in vLLM's `--additional-config` of the GiB that records may take on each device.
MEMORY = "rsp_rl_thoughts_gib"

#: vLLM's least bias, with which ids without a token are kept out of an output.
_LEAST_BIAS = -100.0

#: What acts in vLLM's sampler, which a law's positions do not pass; and its value for nothing.
_SAMPLERS_OWN: dict[str, tuple[Any, ...]] = {
    "min_tokens": (0,),
    "presence_penalty": (0.0,),
    "frequency_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "bad_words": (None, []),
    "allowed_token_ids": (None, []),
    "structured_outputs": (None,),
    "logprob_token_ids": (None, []),
    "thinking_token_budget": (None,),
    "trace_decode_token_ids": (None, []),
}


def check_engine(config: VllmConfig) -> None:
    """Make sure that an engine can think.

    Raises:
        ConfigError: Naming the first thing that it cannot think with.
    """
    if fault := engine_fault(config):
        raise ConfigError(fault)


def engine_fault(config: VllmConfig) -> str | None:
    """Why an engine cannot think, if it cannot."""
    parallel = config.parallel_config
    if parallel.worker_cls != WORKER or not config.model_config.enable_prompt_embeds:
        return f"a law needs --enable-prompt-embeds and --worker-cls {WORKER}"
    if config.scheduler_config.async_scheduling:
        return (
            "a law decides about a token when it is there, and asynchronous scheduling begins the "
            "next step before; start the engine with --no-async-scheduling"
        )
    if parallel.pipeline_parallel_size > 1:
        return (
            "a law needs logits and embedding in one process, and pipeline parallelism has them "
            "apart; use --pipeline-parallel-size 1"
        )
    if parallel.data_parallel_size > 1 and not parallel.data_parallel_external_lb:
        return (
            "records lie in one of several engines, and vLLM asks the first alone for them; use "
            "--data-parallel-size 1 and several servers"
        )
    if config.speculative_config is not None:
        return (
            "a law and speculative decoding exclude each other: drafts are of tokens; leave "
            "--speculative-config out"
        )
    if config.lora_config is not None and _lora_wraps_embedding(config):
        return (
            "a law looks up embeddings, and vLLM puts a LoRA layer over this model's, which counts "
            "on the tokens of a batch; start the engine without --enable-lora, the adapter merged "
            "into the model"
        )
    v2 = has_v2(config)
    return (_v2_fault(config) if v2 else None) or interface_fault(v2)


def _v2_fault(config: VllmConfig) -> str | None:
    """What V2 alone can do, and not with a law."""
    parallel = config.parallel_config
    if getattr(parallel, "enable_batch_sharded_sampling", False):
        return (
            "a law makes the tokens of a whole batch on each rank; leave "
            "--enable-batch-sharded-sampling out"
        )
    if getattr(parallel, "prefill_context_parallel_size", 1) > 1:
        return (
            "a law needs all positions of a step on one rank; use --prefill-context-parallel-size 1"
        )
    if getattr(config, "watermark_config", None) is not None:
        return "vLLM's sampler watermarks tokens, and a law's do not pass it; leave watermarks out"
    if getattr(config.model_config, "return_sampling_mask", False):
        return (
            "masks are of what vLLM's sampler chose from, and a law's tokens do not pass it; leave "
            "--return-sampling-mask out"
        )
    return None


def check_adds(config: VllmConfig) -> None:
    """Make sure that an engine can add rows to the embeddings of a prompt's tokens.

    Raises:
        ConfigError: Naming what it cannot do so with.
    """
    if fault := interface_fault(has_v2(config)):
        raise ConfigError(fault)


def has_v2(config: VllmConfig) -> bool:
    """Whether an engine has vLLM's V2 model runner."""
    return bool(getattr(config, "use_v2_model_runner", False))


def most_bytes(config: VllmConfig) -> int:
    """That records may take on each device.

    Raises:
        ConfigError: On a bad value of `MEMORY`.
    """
    more = config.additional_config
    gib = more.get(MEMORY, MOST_GIB) if isinstance(more, dict) else MOST_GIB
    if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 < gib < 1 << 20:
        raise ConfigError(f"--additional-config: {MEMORY}={gib!r} must be a number of GiB above 0")
    return int(gib * (1 << 30))


@functools.cache
def interface_fault(v2: bool = False) -> str | None:
    """What about one of vLLM's model runners is not as laws need it, if anything.

    Args:
        v2: Which of them.
    """
    try:
        for path, methods in (V2_TAKES if v2 else V1_TAKES).items():
            if fault := class_fault(_named(path), methods):
                return fault
        if v2:
            path, wanted = V2_BATCH
            there = {field.name for field in fields(_named(path))}
            if missing := [name for name in wanted if name not in there]:
                return _unknown(f"{path} has no {', '.join(missing)}")
    except (ImportError, AttributeError, TypeError) as error:
        return _unknown(f"{path} cannot be had ({error})")
    return None


def _named(path: str) -> type:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)  # seconds


def class_fault(kind: type, methods: dict[str, tuple[str, ...] | None]) -> str | None:
    """What about a class is not as `methods` says, if anything."""
    for name, wanted in methods.items():
        method = getattr(kind, name, None)
        if method is None:
            return _unknown(f"{kind.__name__}.{name} is not there")
        found = tuple(inspect.signature(method).parameters)[1:]
        if wanted is not None and found != wanted:
            return _unknown(
                f"{kind.__name__}.{name} takes ({', '.join(found)}), and laws know it as "
                f"{name}({', '.join(wanted)})"
            )
    return None


def _unknown(what: str) -> str:
    return (
        f"vLLM {installed()}: {what}; use a version that was tried, the other model runner "
        f"({VARIABLE}=0 or 1) where there are two, or no law"
    )


def check_request(config: VllmConfig, thinking: Thinking, params: SamplingParams) -> None:
    """Make sure that an engine can do what a thinking request asks for.

    Args:
        config: Of an engine that `check_engine` has passed.
        thinking: Its law.
        params: How its answer is sampled.

    Raises:
        ConfigError: Naming the first thing that it cannot do.
    """
    law = thinking.law
    law.check(config.model_config.get_vocab_size())
    law.check_parallel(config.parallel_config.tensor_parallel_size)
    if params.n > 1:
        raise ConfigError(f"n={params.n}: send a request with a seed of its own for each output")
    for name, nothing in _SAMPLERS_OWN.items():
        if (value := getattr(params, name, nothing[0])) not in nothing:
            raise ConfigError(
                f"{name}={value!r} acts in the sampler, which thoughts do not pass; leave it out "
                f"of a request with a law"
            )
    if unclear := {i: bias for i, bias in (params.logit_bias or {}).items() if bias > _LEAST_BIAS}:
        raise ConfigError(
            f"logit_bias={unclear}: a law takes no bias but {_LEAST_BIAS:.0f}, which keeps a token "
            "out"
        )
    _check_memory(config, thinking, params)
    if params.logprobs is not None and not (law.deterministic or _has_score(law)):
        raise ConfigError(f"logprobs: law={law.name} has no log-probs; leave them out")
    if thinking.phases.cold_abort and params.ignore_eos and not params.stop_token_ids:
        raise ConfigError(
            "law.compat=cold_abort ends an output with a token, and nothing ends this one; leave "
            "ignore_eos out"
        )


def _check_memory(config: VllmConfig, thinking: Thinking, params: SamplingParams) -> None:
    """One request alone must not take the engine down; of many the worker says it."""
    model = config.model_config
    phases, positions = thinking.phases, params.max_tokens or model.max_model_len
    if phases.max_thoughts is not None:
        forced = max(len(phases.on_cut), len(phases.on_end))
        positions = min(positions, phases.max_thoughts + forced + 1)
    each = position_bytes(thinking.law, model.get_hidden_size(), model.dtype.itemsize)
    if (wanted := positions * each) > (most := most_bytes(config)):
        raise ConfigError(
            f"the record of a request with law={thinking.law.name} may take {wanted / 2**30:.2f} "
            f"GiB, and those of all may take {most / 2**30:.2f}; lower law.k or law.max_thoughts, "
            f"or start vLLM with --additional-config '{{\"{MEMORY}\": N}}'"
        )


def _has_score(law: InputLaw) -> bool:
    return type(law).log_prob is not InputLaw.log_prob


def _lora_wraps_embedding(config: VllmConfig) -> bool:
    from vllm.model_executor.models import ModelRegistry

    model = config.model_config
    kind, _ = ModelRegistry.resolve_model_cls(model.architectures, model)
    return bool(getattr(kind, "embedding_modules", None))
