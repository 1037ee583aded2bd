"""Which model runner of vLLM serves prompts of embeddings, which soft prompts are sent as.

The V2 model runner of the pinned versions, 0.24.0 and 0.28.0, refuses them, and vLLM takes V1 for
them unless told otherwise. vLLM 0.29.0 has `V2_FILE`, and V2 is the default for all models there.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from rsp_rl.basics.errors import ConfigError

#: What `--worker-cls` names for an engine whose requests are records (`vllm_prompt` here).
WORKER = "rsp_rl.injection.vllm_worker.SoftPromptWorker"

#: What decides, in vLLM's processes: 0 or 1; vLLM chooses if it is not set.
VARIABLE = "VLLM_USE_V2_MODEL_RUNNER"

#: Of a vLLM whose V2 takes prompt embeddings (vllm-project/vllm#42963); within its package.
V2_FILE = "v1/worker/gpu/model_states/prompt_embeds.py"


def v2_takes_prompt_embeds() -> bool:
    """Whether the installed vLLM has `V2_FILE`; found without importing it."""
    spec = find_spec("vllm")
    folders = spec.submodule_search_locations if spec else None
    return any((Path(folder) / V2_FILE).is_file() for folder in folders or ())


def takes_v2(asked: str | None) -> bool:
    """Whether an engine for soft prompts gets V2.

    Args:
        asked: `VARIABLE` as the engine's processes see it; None where it is not set.

    Raises:
        ConfigError: If V2 is asked for and takes no prompt embeddings, or the variable is neither
            0 nor 1: vLLM would say so minutes later.
    """
    if asked not in (None, "0", "1"):
        raise ConfigError(f"{VARIABLE}={asked!r} is neither 0 nor 1; unset it")
    if v2_takes_prompt_embeds():
        return asked != "0"
    if asked == "1":
        raise ConfigError(
            f"{VARIABLE}=1, but the V2 model runner of vLLM {installed()} does not take prompt "
            "embeddings, which soft prompts are sent as; unset it"
        )
    return False


def installed() -> str:
    """vLLM's version."""
    try:
        return version("vllm")
    except PackageNotFoundError:
        return "(unknown version)"
