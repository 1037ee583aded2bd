"""One folder for all that is read of a model: settings with which verl would read it from others.

Checks, vLLM and the evaluation read tokenizer, config and chat template of `model.path`.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError

#: What makes verl take a model for one of images, too.
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")


def check_sources(config: DictConfig, folder: Path) -> None:
    """Refuse a tokenizer or config from elsewhere, and templates that verl gives to half of a run.

    Args:
        config: The composed config.
        folder: The model's.

    Raises:
        ConfigError: Naming the setting.
    """
    model = config.actor_rollout_ref.model
    for name, what in (("tokenizer_path", "tokenizer"), ("hf_config_path", "config")):
        named = model.get(name)
        if named and named != model.path and Path(named).expanduser().resolve() != folder.resolve():
            raise ConfigError(
                f"actor_rollout_ref.model.{name}={named}: verl's trainer would take the {what} "
                f"there, vLLM that of actor_rollout_ref.model.path={model.path}; put it into a "
                "copy of the model's folder, and name that as path"
            )
    found = [name for name in _PROCESSORS if (folder / name).is_file()]
    if model.get("custom_chat_template") and found:
        raise ConfigError(
            f"actor_rollout_ref.model.custom_chat_template with a model of images ({found[0]}): "
            "verl gives it to the processor and not to the tokenizer, which places soft prompts; "
            "write it into chat_template.jinja of a copy of the model's folder"
        )
