"""What an evaluation was made with, so that someone else can make the same numbers."""

from __future__ import annotations

import os
import platform
from typing import Any

from rsp_rl.runs.versions import commit, versions


def provenance() -> dict[str, Any]:
    """Versions, commit and hardware of this process."""
    return {"versions": versions(), "commit": commit(), "hardware": _hardware()}


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"gpus": gpus, "cpu": platform.machine(), "cores": os.cpu_count()}
