"""What the GPU kit would pack of today's package index: every need is met or explained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.harness import REPOSITORY


def test_every_need_is_packed_there_or_omitted_for_a_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", REPOSITORY / "scripts/gpu/pack.sh", "--list", "--output", tmp_path],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    packed = {row[1] for row in rows if row[0] == "packed"}
    assert {"vllm", "verl", "ray", "transformers"} <= packed
    assert "torch" not in packed  # the machine's own
    assert not any(row[0] == "UNMET" for row in rows)
    assert not (tmp_path / "parts").exists()
