"""Which engine runs a model."""

from __future__ import annotations

from pathlib import Path

from rsp_rl.comparators.interface import Comparator
from rsp_rl.inference.requests import EngineOptions, Engines
from rsp_rl.options import ConfigError


def start_engines(
    model: Path,
    options: EngineOptions,
    *,
    soft_prompts: bool,
    comparator: Comparator | None = None,
) -> Engines:
    """Load a model.

    Args:
        model: Hugging Face folder; on a cluster, one that every node sees.
        options: How it is run: vLLM in this process, several vLLM engines as Ray actors, or
            Hugging Face.
        soft_prompts: Whether requests may have a record.
        comparator: What the vectors of soft prompts come from; RSP's own draw if `None`.

    Raises:
        ConfigError: If a comparator meets an engine that cannot run it.
    """
    check_comparator_engine(options, comparator)
    # Imported here: whoever needs the one need not have the other.
    if options.kind == "huggingface":
        from rsp_rl.inference.huggingface import HuggingFaceEngine

        return HuggingFaceEngine(model, options, comparator)
    from rsp_rl.inference.vllm_engine import LocalEngine, RayEngines

    kind = LocalEngine if options.data_parallel == 1 else RayEngines
    return kind(str(model), options, soft_prompts)


def check_comparator_engine(options: EngineOptions, comparator: Comparator | None) -> None:
    """Refuse comparators on vLLM, which gives neither logits within a prompt nor hidden states.

    Raises:
        ConfigError: Naming the option.
    """
    if comparator is not None and options.kind != "huggingface":
        raise ConfigError(
            f"comparator.method={comparator.method} needs --engine huggingface: vLLM draws soft "
            "prompts by itself"
        )
