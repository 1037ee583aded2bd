"""Trained parameters of a comparator on disk, with how they came to be.

`soft_prompt.safetensors` holds both: the description is in its metadata, so that the two cannot be
torn apart. `how.json` beside it is the description again, for readers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import write_json, write_whole
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.embedding_table import open_embedding_table
from rsp_rl.models.weights import weights_digest

FILE = "soft_prompt.safetensors"

_KEY = "rsp_rl"

#: What every description says.
_DESCRIPTION = ("method", "length", "position", "model", "weights")


@dataclass(frozen=True)
class TrainedFile:
    """What a comparator's training left.

    Attributes:
        file: Where it lies.
        tensors: Parameters by name, float32 on the CPU.
        how: Method, preset, L in evaluations, models, data, hyper-parameters and course of the
            training.
        digest: Of the whole file, 16 hexadecimal digits.
    """

    file: Path
    tensors: dict[str, torch.Tensor]
    how: dict[str, Any]
    digest: str

    def check(self, model: Path, rsp: RspOptions, width: int) -> None:
        """Make sure that the file is for this model, L and position.

        Args:
            model: Hugging Face folder.
            rsp: How many vectors are wanted, and where.
            width: d of what the trained parameters give.

        Raises:
            RunFolderError: If it is for another model.
            ConfigError: If it is for another L or position.
        """
        if (hidden_size := open_embedding_table(model).hidden_size) != width:
            raise RunFolderError(
                f"{self.file} holds soft prompts of width {width}, the embeddings of {model} are "
                f"{hidden_size} wide; it was trained for {self.how['model']}"
            )
        if weights_digest(model) != self.how["weights"]:
            raise RunFolderError(
                f"{self.file} was trained for {self.how['model']}, and {model} has other weights; "
                "train one for this model: rsp-rl train-comparator"
            )
        for name in ("length", "position"):
            if (trained := self.how[name]) != getattr(rsp, name):
                raise ConfigError(
                    f"rsp.{name}={getattr(rsp, name)}, but {self.file} was trained with {trained}; "
                    f"set rsp.{name}={trained}"
                )


def save_trained(folder: Path, tensors: Mapping[str, torch.Tensor], how: Mapping[str, Any]) -> Path:
    """Write a training's result, whole or not at all.

    Args:
        folder: Where it goes.
        tensors: Parameters by name.
        how: Plain types; `method`, `length`, `position`, `model` and `weights` (the model's digest)
            among them.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(folder / FILE, save(kept, metadata={_KEY: json.dumps(how)}))
    write_json(folder / "how.json", dict(how))
    return folder / FILE


def load_trained(folder: Path, method: str, names: tuple[str, ...]) -> TrainedFile:
    """Read what `save_trained` wrote.

    Args:
        folder: Where it lies.
        method: Which it must be of.
        names: Of the tensors that it must hold.

    Raises:
        RunFolderError: If the file is missing, damaged, or another method's.
    """
    file = folder / FILE
    if not file.is_file():
        raise RunFolderError(
            f"{file} is missing; train it with `rsp-rl train-comparator {method}`, or name the "
            "folder that holds it"
        )
    try:
        with safe_open(file, framework="pt") as stored:
            how = json.loads((stored.metadata() or {})[_KEY])
            for key in _DESCRIPTION:
                how[key]
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{file} is damaged, or not of `rsp-rl train-comparator` ({error}); train it again"
        ) from error
    if how["method"] != method:
        raise RunFolderError(
            f"{file} was trained by {how['method']}, but comparator.method={method}; name the "
            "folder of the method, or the method of the folder"
        )
    if missing := sorted({*names} - tensors.keys()):
        raise RunFolderError(f"{file} lacks {missing[0]!r}; train it again")
    digest = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return TrainedFile(file, tensors, how, digest)


def settings_of(how: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters of a training from its description, SoftCoT's assistant among them."""
    named = {"assistant": how["assistant"]} if "assistant" in how else {}
    return {**how.get("settings", {}), **named}
