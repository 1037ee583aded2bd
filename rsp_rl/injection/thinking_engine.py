"""What vLLM can think with: engines and requests that laws cannot serve are refused with a reason.

Before a request is sent, in the process that sends it; a worker looks at the engine once more.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from vllm.config import VllmConfig
from vllm.sampling_params import SamplingParams

from rsp_rl.basics.errors import ConfigError
from rsp_rl.injection.model_runner import VARIABLE, WORKER, installed
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.settings import Thinking
from rsp_rl.thoughts.table import MOST_GIB, position_bytes

#: Methods of vLLM's runner that `rsp_rl.injection.thinking_runner` overrides, and what they take.
OVERRIDDEN = {
    "_update_states": ("scheduler_output",),
    "_preprocess": ("scheduler_output", "num_input_tokens", "intermediate_tensors"),
    "_sample": ("logits", "spec_decode_metadata"),
    "sample_tokens": ("grammar_output",),
}

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
    if getattr(config, "use_v2_model_runner", False):
        return (
            "a law needs vLLM's V1 model runner, and this engine has V2, for which there is no "
            f"adapter; set {VARIABLE}=0"
        )
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
    return interface_fault()


def check_adds(config: VllmConfig) -> None:
    """Make sure that an engine can add rows to the embeddings of a prompt's tokens.

    Raises:
        ConfigError: Naming what it cannot do so with.
    """
    if getattr(config, "use_v2_model_runner", False):
        raise ConfigError(
            "noise on the question needs vLLM's V1 model runner, and this engine has V2, for which "
            f"there is no adapter; set {VARIABLE}=0"
        )
    if fault := interface_fault():
        raise ConfigError(fault)


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
def interface_fault(runner: type | None = None) -> str | None:
    """What about vLLM's V1 runner is not as laws need it, if anything."""
    if runner is None:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner as runner  # seconds
    for name, wanted in OVERRIDDEN.items():
        method = getattr(runner, name, None)
        found = tuple(inspect.signature(method).parameters)[1:] if method else None
        if found != wanted:
            what = f"takes ({', '.join(found)})" if found is not None else "is not there"
            return (
                f"vLLM {installed()}: {runner.__name__}.{name} {what}, and laws know it as "
                f"{name}({', '.join(wanted)}); use a version that rsp-rl names, or no law"
            )
    return None


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
