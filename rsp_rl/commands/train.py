"""`rsp-rl train --config-name dapo_rsp [overrides]`: a training run, shown as it goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from rsp_rl.console.supervisor import supervise

#: Hydra's options that say which config to train with; with any other it only answers.
_WHICH_CONFIG = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")


def main(arguments: Sequence[str]) -> int:
    """Train in a process of its own.

    Args:
        arguments: Hydra's: `--config-name` and overrides.

    Returns:
        Exit status, see `rsp_rl.basics.exit_status`.
    """
    command = [sys.executable, "-u", "-m", "rsp_rl.training.train", *arguments]
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    if not set(options) <= set(_WHICH_CONFIG):
        return subprocess.call(command)
    return supervise(command)
