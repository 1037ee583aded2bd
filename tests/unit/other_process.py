"""Another Python process, in which hashes of strings are others."""

from __future__ import annotations

import subprocess
import sys


def printed(code: str) -> str:
    """What a program prints there."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout
