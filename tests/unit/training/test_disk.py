"""A checkpoint that its disk does not hold is told of before the start."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from rsp_rl.training.disk import tell_room


@pytest.mark.parametrize(
    ("free", "save_freq", "rank", "told"),
    [
        (11_999, 10, 0, True),
        (12_000, 10, 0, False),
        (0, -1, 0, False),
        (4_000, 10, 8, False),
        (3_999, 10, 8, True),
    ],
)
def test_a_disk_without_room(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int,
    save_freq: int,
    rank: int,
    told: bool,
) -> None:
    save_file({"a": torch.zeros(10, 50), "b": torch.zeros(500)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    config = OmegaConf.create(
        {
            "trainer": {"save_freq": save_freq, "default_local_dir": str(tmp_path)},
            "actor_rollout_ref": {"model": {"lora_rank": rank}},
        }
    )
    tell_room(config, tmp_path)
    assert ("a checkpoint takes about" in caplog.text) == told
