"""A model's folder: where it is, and what it must hold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.kept_text import check_text_is_kept, warn_of_other_tokens
from rsp_rl.models.weights import check_whole_files, weight_names

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")
LATENT_FILE = "latent.json"
"""Beside a model that thinks in hidden states before it answers (`rsp_rl.latent.folder`)."""

#: What peft calls an adapter, and verl's merger the folder that it moves one to.
_ADAPTERS = ("adapter_config.json", "lora_adapter")
_VOCABULARY_PATTERNS = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")


def resolve_model_folder(path: str) -> Path:
    """The local folder of a model given as a folder or as a name on the Hugging Face hub.

    Raises:
        ConfigError: If there is no such folder, and no such model on the hub (or no way to it).
    """
    if not path:
        raise ConfigError(
            "actor_rollout_ref.model.path is not set; give a Hugging Face model folder, or a name "
            "on the hub such as Qwen/Qwen2.5-Math-7B"
        )
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise ConfigError(
            f"actor_rollout_ref.model.path={path!r}: no such folder; give a Hugging Face model "
            "folder, or a name on the hub such as Qwen/Qwen2.5-Math-7B"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
    except Exception as error:  # the hub raises a dozen kinds; all mean the same to the user
        raise ConfigError(
            f"actor_rollout_ref.model.path={path!r}: no such folder, and the hub did not give it "
            f"({type(error).__name__}: {error}); check the name, the network and HF_TOKEN"
        ) from error


def check_model(folder: Path, *, thinks: bool = False) -> PretrainedConfig:
    """The model's config, its weights being there.

    Args:
        folder: Hugging Face folder.
        thinks: Whether it may be one that thinks in hidden states. Whoever does not know how would
            read its question in another form and have it answer without its thoughts.

    Raises:
        ConfigError: If the folder holds no config that loads, or no safetensors weights, or an
            adapter, which engines would leave out, or weights that are not whole, or a model that
            thinks where none may be.
    """
    from transformers import AutoConfig

    if not thinks:
        refuse_thinker(folder)
    for name in _ADAPTERS:
        if (folder / name).exists():
            raise ConfigError(
                f"model folder {folder} holds a LoRA adapter ({name}) beside or instead of its "
                "model, and nothing would read it; merge it (peft's merge_and_unload, or evaluate "
                "the run's folder, which merges), or move it away to have the model without it"
            )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model folder {folder} holds no config.json; is it a Hugging Face model folder? "
            "Of a checkpoint, give its global_step_N folder or the run's to rsp-rl eval"
        )
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHT_PATTERNS):
        raise ConfigError(f"model folder {folder} holds no *.safetensors weights; download them")
    check_whole_files(folder)
    for file in sorted(folder.glob("*.safetensors")):
        if any(".lora_" in name for name in weight_names(file)):
            raise ConfigError(
                f"{file} has the weights of a LoRA run by peft's names, which engines do not "
                "know (verl's hf_model); evaluate the run's folder, which merges them"
            )
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        _refuse_own_code(folder, error)
        raise ConfigError(f"{folder / 'config.json'} is no model config: {error}") from error


def refuse_thinker(folder: Path) -> None:
    """Make sure that a model is no one that thinks in hidden states.

    Raises:
        ConfigError: If it is.
    """
    if (folder / LATENT_FILE).is_file():
        raise ConfigError(
            f"model folder {folder} is of a training by `rsp-rl latent train` ({LATENT_FILE}): it "
            "reads its question in a form of its own and may think in hidden states first, which "
            "only `rsp-rl latent eval` does; evaluate it with that, or take the model that it was "
            "trained from"
        )


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        ConfigError: If the folder holds none that loads, or one that loses text.
    """
    from transformers import AutoTokenizer

    if not any(next(folder.glob(pattern), None) for pattern in _VOCABULARY_PATTERNS):
        # transformers would make an empty tokenizer of the model's type.
        raise ConfigError(
            f"model folder {folder} holds no tokenizer (tokenizer.json, vocab.json or "
            "tokenizer.model); download it, or save the base model's there"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception
        _refuse_own_code(folder, error)
        raise ConfigError(f"model folder {folder} holds no usable tokenizer: {error}") from error
    check_text_is_kept(tokenizer, str(folder))
    warn_of_other_tokens(tokenizer, folder)
    if chat_template:
        tokenizer.chat_template = chat_template
    return tokenizer


def _refuse_own_code(folder: Path, error: Exception) -> None:
    """transformers, left to itself, would ask on the terminal whether to run it, and wait."""
    if "trust_remote_code" in str(error):
        raise ConfigError(
            f"{folder} brings code of its own (auto_map), which is never run here; take a model "
            "and a tokenizer that transformers knows"
        ) from error
