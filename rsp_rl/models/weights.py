"""Which weights a model folder holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError

_BLOCK = 1 << 16
_BLOCKS = 64

#: Rows that are read of each weight.
_ROWS = 16

#: By safetensors' names.
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def weights_digest(model: Path) -> str:
    """Tells two models of one shape apart without reading gigabytes.

    Args:
        model: Hugging Face folder with safetensors weights.

    Returns:
        As `files_digest`, of its weights files.
    """
    return files_digest(model.glob("*.safetensors"))


def files_digest(files: Iterable[Path]) -> str:
    """A hash of 64 blocks of 64 KiB, evenly spaced, of each file, with names and sizes."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as weights:
            for offset in range(0, size, max(_BLOCK, size // _BLOCKS)):
                weights.seek(offset)
                digest.update(weights.read(_BLOCK))
    return digest.hexdigest()


def values_digest(model: Path) -> str:
    """Tells whether two models are the same one, however they are stored.

    Neither names nor files count, nor whether values are stored in bfloat16 or float32 if
    bfloat16 holds them: a base model and what was made of a checkpoint differ in all of that.

    Args:
        model: As for `weights_digest`.

    Returns:
        A hash of 16 rows, evenly spaced, of every weight.

    Raises:
        ConfigError: If a number in them is not finite.
    """
    from safetensors import safe_open

    found = set()
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                rows = weights.get_slice(name)
                shape = rows.get_shape()
                digest = hashlib.blake2b(str(shape).encode(), digest_size=8)
                if len(shape) < 2:
                    parts = [weights.get_tensor(name)]
                else:
                    starts = range(0, shape[0], max(1, shape[0] // _ROWS))
                    parts = [rows[start : start + 1] for start in starts]
                for part in (part.float() for part in parts):
                    if not part.isfinite().all():
                        raise ConfigError(
                            f"{file}: {name} holds numbers that are not finite; was it made by a "
                            "training that diverged?"
                        )
                    digest.update(part.numpy().tobytes())
                found.add(digest.digest())  # tied weights, stored twice or once, are one
    return hashlib.blake2b(b"".join(sorted(found)), digest_size=8).hexdigest()


def stored_dtype(model: Path) -> str:
    """The dtype of a model folder's weights on disk; all of them if there are several."""
    files = model.glob("*.safetensors")
    found = {entry["dtype"] for file in files for entry in _header(file).values()}
    return ", ".join(sorted(_DTYPES.get(name, name) for name in found))


def check_whole_files(model: Path) -> None:
    """Make sure that a download or copy of the weights was not cut off.

    Args:
        model: As for `weights_digest`.

    Raises:
        ConfigError: Naming the file that is missing, cut short, or no safetensors file.
    """
    for index in sorted(model.glob("*.safetensors.index.json")):
        try:
            named = {*json.loads(index.read_text())["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{index} is no index of weights; download it again") from error
        if missing := sorted(name for name in named if not (model / name).is_file()):
            raise ConfigError(
                f"{index} names {missing[0]} (and {len(missing) - 1} more), which is missing; "
                "download it, or remove the index if the weights are all in other files"
            )
    for file in sorted(model.glob("*.safetensors")):
        header, start = _read(file)
        wanted = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if (size := file.stat().st_size) < wanted:
            raise ConfigError(f"{file} has {size} bytes of {wanted}; download it again")


def weight_names(file: Path) -> list[str]:
    """Names of the weights in a safetensors file.

    Raises:
        ConfigError: If it is none.
    """
    return list(_header(file))


def _header(file: Path) -> dict[str, dict[str, Any]]:
    return _read(file)[0]


def _read(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    from rsp_rl.draws.embedding_table import read_header  # here: it imports numpy

    try:
        return read_header(file)
    except ValueError as error:
        raise ConfigError(str(error)) from error
