"""What is reported as broken in vLLM and would hit a run with soft prompts."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig
from transformers import PretrainedConfig

from rsp_rl.basics.errors import ConfigError

_MODELS = "model_executor/models"


def check_lora(config: DictConfig, model: PretrainedConfig) -> None:
    """Refuse LoRA with prompt embeddings where vLLM cannot have both (`lora_fault`).

    Where verl sends it merged weights (`lora.merge`) vLLM knows of no adapter.

    Args:
        config: The composed config, `enable_prompt_embeds` filled in.
        model: The model's config.

    Raises:
        ConfigError: Naming the report.
    """
    ours, vllm = (
        config.actor_rollout_ref.model,
        config.actor_rollout_ref.rollout.engine_kwargs.vllm,
    )
    in_vllm = ours.get("lora_rank", 0) > 0 and not (ours.get("lora") or {}).get("merge", False)
    if not in_vllm or not vllm.enable_prompt_embeds:
        return
    if fault := lora_fault(model):
        raise ConfigError(
            f"{fault}; set actor_rollout_ref.model.lora.merge=true, with which verl sends weights "
            "merged and rounded to bfloat16, or take a model without that layer, such as Qwen2"
        )


def lora_fault(model: PretrainedConfig) -> str | None:
    """What is wrong with LoRA and soft prompts on a model, if anything is (vLLM #51122).

    vLLM's LoRA layer for embeddings counts on the tokens of a whole batch and gets those that are
    not embeddings: it reads beyond its arrays, and the engine dies. vLLM wraps the layer of each
    model class with `embedding_modules`, whatever the adapter targets.

    Args:
        model: The model's config.
    """
    for name in getattr(model, "architectures", None) or []:
        if wraps_embedding(name):
            return (
                f"LoRA with soft prompts on {name}: vLLM puts a LoRA layer over this model's "
                "embedding, which reads beyond its arrays when prompts hold embeddings (vLLM issue "
                "#51122, https://github.com/vllm-project/vllm/issues/51122)"
            )
    return None


def wraps_embedding(architecture: str) -> bool:
    """Whether vLLM's class for an architecture lets LoRA wrap its embedding layer.

    Read from the installed vLLM's source; to import a model's class takes seconds.

    Args:
        architecture: As in a model's `config.json`; False for one that vLLM does not have.
    """
    spec = find_spec("vllm")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        models = Path(folder) / _MODELS
        registry = (models / "registry.py").read_text()
        found = re.search(rf'"{re.escape(architecture)}": \(\s*"(\w+)",\s*"(\w+)"', registry)
        if found:
            return bool(_embedding_modules(models, *found.groups()))
    return False


def _embedding_modules(models: Path, module: str, name: str) -> Sequence[ast.expr]:
    """Keys of a class's `embedding_modules`, its own or the first that a base class has."""
    file = models / f"{module}.py"
    tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
    found = next((c for c in tree.body if isinstance(c, ast.ClassDef) and c.name == name), None)
    if found is None:
        return ()
    for line in found.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if "embedding_modules" in names and isinstance(line.value, ast.Dict):
            return line.value.keys
    homes = {
        alias.asname or alias.name: (line.module.rpartition(".")[2], alias.name)
        for line in tree.body
        if isinstance(line, ast.ImportFrom) and line.module
        for alias in line.names
    }
    for base in (base.id for base in found.bases if isinstance(base, ast.Name)):
        if keys := _embedding_modules(models, *homes.get(base, (module, base))):
            return keys
    return ()
