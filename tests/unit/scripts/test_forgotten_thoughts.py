"""The bench of forgotten thoughts, on the tiny model."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import forgotten_thoughts
import pytest
import torch

from rsp_rl.tiny import make_tiny_model


def test_every_law_has_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_tiny_model(tmp_path / "tiny", steps=0, threads=1)
    dtypes = ["--dtypes", "float32", "float32"]
    monkeypatch.setattr(sys, "argv", ["bench", str(model), "--thoughts", "4", *dtypes])
    with torch.no_grad():
        forgotten_thoughts.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:24].strip() for line in lines] == [
        *("multiplex, mean", "multiplex, by probabilit", "gumbel, tau .1", "soft", "fuzzy"),
        *("neighbours", "neighbours, everywhere", "neftune"),
    ]
    for line in lines:
        gap, would = map(float, re.findall(r"gap (\S+), forgotten (\S+),", line)[0])
        assert gap < 1e-3 <= would, line
