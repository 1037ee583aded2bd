"""Which weights a model folder holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 1 << 16
_BLOCKS = 64


def weights_digest(model: Path) -> str:
    """Tells two models of one shape apart without reading gigabytes.

    Args:
        model: Hugging Face folder with safetensors weights.

    Returns:
        A hash of 64 blocks of 64 KiB, evenly spaced, of each weights file, with their sizes.
    """
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(model.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as weights:
            for offset in range(0, size, max(_BLOCK, size // _BLOCKS)):
                weights.seek(offset)
                digest.update(weights.read(_BLOCK))
    return digest.hexdigest()
