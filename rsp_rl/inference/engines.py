"""Which engine runs a model."""

from __future__ import annotations

from pathlib import Path

from rsp_rl.inference.requests import EngineOptions, Engines


def start_engines(model: Path, options: EngineOptions, *, soft_prompts: bool) -> Engines:
    """Load a model.

    Args:
        model: Hugging Face folder; on a cluster, one that every node sees.
        options: How it is run: vLLM in this process, several vLLM engines as Ray actors, or
            Hugging Face.
        soft_prompts: Whether requests may have a record.
    """
    # Imported here: whoever needs the one need not have the other.
    if options.kind == "huggingface":
        from rsp_rl.inference.huggingface import HuggingFaceEngine

        return HuggingFaceEngine(model, options)
    from rsp_rl.inference.vllm_engine import LocalEngine, RayEngines

    kind = LocalEngine if options.data_parallel == 1 else RayEngines
    return kind(str(model), options, soft_prompts)
