"""LoRA runs whose checkpoints could not be evaluated, found before they start.

A checkpoint keeps an adapter's rank and alpha, as whole numbers, and its matrices A and B; what
else peft knows of an adapter is lost with the run (`FSDPCheckpointManager._save_lora_train_meta`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json

#: What peft may add to A and B, by its name in `adapter_config.json`.
_BEYOND = (
    *("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias"),
    *("target_parameters", "trainable_token_indices", "layer_replication"),
)


def check_adapter(config: DictConfig) -> None:
    """Make sure that a LoRA run trains the adapter it names and that it can be merged.

    Raises:
        ConfigError: Naming the setting.
    """
    model, checkpoint = config.actor_rollout_ref.model, config.actor_rollout_ref.actor.checkpoint
    where = "actor_rollout_ref.model"
    begun = model.get("lora_adapter_path")
    # Megatron's setting, which verl's vLLM server reads first and its FSDP actor not at all.
    nested = (model.get("lora") or {}).get("rank", 0)
    if nested not in (0, model.get("lora_rank", 0)):
        raise ConfigError(
            f"{where}.lora.rank={nested} but {where}.lora_rank={model.get('lora_rank', 0)}: vLLM "
            "would take the former and the actor the latter; set lora_rank alone"
        )
    if model.get("lora_rank", 0) <= 0:
        if begun:
            raise ConfigError(
                f"{where}.lora_adapter_path={begun} but {where}.lora_rank=0: verl would train the "
                "base model and leave the adapter out; set lora_rank to the adapter's r"
            )
        return
    alpha = model.lora_alpha
    if alpha != int(alpha) or alpha <= 0:
        raise ConfigError(
            f"{where}.lora_alpha={alpha} must be a whole number above 0; checkpoints keep no other"
        )
    if model.get("target_parameters"):
        raise ConfigError(
            f"{where}.target_parameters={model.target_parameters}: such an adapter cannot be "
            "merged, and so not be evaluated; use target_modules"
        )
    if checkpoint.get("save_lora_only"):
        raise ConfigError(
            "actor_rollout_ref.actor.checkpoint.save_lora_only=true leaves no base model to merge "
            "the adapter into; leave it false"
        )
    if "model" not in checkpoint.save_contents:
        raise ConfigError(
            f"actor_rollout_ref.actor.checkpoint.save_contents={list(checkpoint.save_contents)} "
            "lacks 'model': verl's hf_model of a LoRA run has peft's names, which no engine loads"
        )
    if begun:
        _check_begun(Path(str(begun)).expanduser(), model.lora_rank)


def _check_begun(folder: Path, rank: int) -> None:
    """Of an adapter that is trained on."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise ConfigError(
            f"actor_rollout_ref.model.lora_adapter_path={folder} holds no {file.name}; give the "
            "folder that peft saved"
        )
    try:
        adapter: dict[str, Any] = read_json(file)
    except RunFolderError as error:
        raise ConfigError(f"actor_rollout_ref.model.lora_adapter_path: {error}") from error
    if adapter.get("r") != rank:
        raise ConfigError(
            f"{file} has r={adapter.get('r')} and actor_rollout_ref.model.lora_rank={rank}; set "
            "lora_rank to the adapter's"
        )
    alpha = adapter.get("lora_alpha")
    if not isinstance(alpha, int | float) or alpha != int(alpha) or alpha <= 0:
        raise ConfigError(
            f"{file}: lora_alpha={alpha} must be a whole number above 0; checkpoints keep no other"
        )
    beyond = [name for name in _BEYOND if adapter.get(name)]
    if adapter.get("bias", "none") != "none":
        beyond.append("bias")
    if beyond or adapter.get("peft_type", "LORA") != "LORA":
        name = beyond[0] if beyond else "peft_type"
        raise ConfigError(
            f"{file}: {name}={adapter[name]}: only plain LoRA, W + (alpha / r) B A, can be "
            "merged and evaluated; merge this adapter into the base model and train a new one"
        )
