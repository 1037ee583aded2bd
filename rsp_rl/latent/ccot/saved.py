"""What a training of CCOT leaves: `ccot.safetensors` and `ccot.json`, beside no model.

The first has both adapters and the classifier by their names; the second the settings, and which
model they are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json, write_json
from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.ending import Ending
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.folder import read_thinking
from rsp_rl.latent.run_folder import CCOT_FILE
from rsp_rl.models.folder import check_model
from rsp_rl.models.weights import weights_digest

TENSORS_FILE = "ccot.safetensors"

_ENDING = "ending."

WORDS = "cot"
"""The method of `rsp-rl latent train` whose models write their steps."""


def build(
    model: Path, settings: CcotSettings, dtype: torch.dtype, device: torch.device | str
) -> tuple[Adapters, Ending]:
    """A model with adapters and classifier that have learnt nothing.

    Args:
        model: Hugging Face folder.
        settings: Of the training.
        dtype: Of the model's weights.
        device: Where it runs.

    Raises:
        ConfigError: If the folder holds no model that CCOT can train, or one that does not write
            its steps, or l is none of its layers.
    """
    from transformers import AutoModelForCausalLM

    check_model(model, thinks=True)
    thinking = read_thinking(model)
    if thinking is not None and thinking.method != WORDS:
        raise ConfigError(
            f"{model} was trained with method {thinking.method} of `rsp-rl latent train`; CCOT "
            f"learns from chains that a model writes; take one of method {WORDS}, or another model"
        )
    network = AutoModelForCausalLM.from_pretrained(
        model, dtype=dtype, attn_implementation="sdpa", trust_remote_code=False
    ).to(device)
    adapters = Adapters(
        network,
        generator_rank=settings.generator_rank,
        decoder_rank=settings.decoder_rank,
        scale=settings.lora_scale,
        seed=settings.seed,
    )
    settings.layer_of(adapters.layers)
    return adapters, Ending(adapters.width).to(device)


def save(
    folder: Path,
    adapters: Adapters,
    ending: Ending,
    settings: CcotSettings,
    of: Mapping[str, Any],
) -> None:
    """Write what was trained into a folder; whether that is whole is the caller's part.

    Args:
        folder: Where to.
        adapters: phi and psi.
        ending: The classifier.
        settings: Of the training.
        of: `model`, `weights` (its digest), and what else is known of model and data.
    """
    tensors = {**adapters.state_dict()}
    tensors |= {_ENDING + name: tensor for name, tensor in ending.state_dict().items()}
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / TENSORS_FILE)
    # Last: a folder with it is whole.
    write_json(folder / CCOT_FILE, {"settings": asdict(settings), "of": dict(of)})


def read(folder: Path) -> tuple[CcotSettings, dict[str, Any]]:
    """Settings, and what model and data were.

    Raises:
        RunFolderError: If one of the files is missing, or `ccot.json` is damaged.
    """
    for file in (folder / TENSORS_FILE, folder / CCOT_FILE):
        if not file.is_file():
            raise RunFolderError(
                f"{file} is missing: {folder} holds nothing that CCOT has trained, or its training "
                "is not finished; go on with it, or name a finished run"
            )
    said = read_json(file)
    try:
        return CcotSettings(**said["settings"]), {**said["of"], "weights": said["of"]["weights"]}
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); train it again") from error


def check_base(folder: Path, model: Path) -> None:
    """Make sure that a model is the one that something was trained for.

    Args:
        folder: That `save` wrote to.
        model: Hugging Face folder.

    Raises:
        RunFolderError: If it has other weights; also see `read`.
        ConfigError: If it is no model's folder.
    """
    _, of = read(folder)
    check_model(model, thinks=True)
    if weights_digest(model) != of["weights"]:
        raise RunFolderError(
            f"{folder} was trained for {of.get('model')}, and {model} has other weights; name the "
            "model that it was trained for"
        )


def load(
    folder: Path, model: Path, dtype: torch.dtype, device: torch.device | str
) -> tuple[Adapters, Ending, CcotSettings]:
    """A trained model.

    Args:
        folder: That `save` wrote to.
        model: Hugging Face folder of the model that it was trained for.
        dtype: Of the model's weights.
        device: Where it runs.

    Raises:
        RunFolderError: If something is missing or damaged, or is another model's.
        ConfigError: See `build`.
    """
    settings, _ = read(folder)
    check_base(folder, model)
    adapters, ending = build(model, settings, dtype, device)
    file = folder / TENSORS_FILE
    try:
        tensors = load_file(file)
        ending.load_state_dict(
            {
                name.removeprefix(_ENDING): tensors.pop(name)
                for name in [*tensors]
                if name.startswith(_ENDING)
            }
        )
        adapters.load_state_dict(tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise RunFolderError(f"{file} is missing or damaged ({error}); train it again") from error
    return adapters, ending, settings
