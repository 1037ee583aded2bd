"""Paths mean in every process what they mean where the run is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rsp_rl.training.configs import compose_config
from rsp_rl.training.paths import READ, WRITTEN, make_absolute


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_every_setting_that_names_files(here: Path) -> None:
    """Each is a setting of the composed config, or one that a config may have besides."""
    (here / "there").touch()
    config = compose_config("tiny_cpu")
    for name in READ:
        OmegaConf.update(config, name, "there", force_add=True)
    for name in WRITTEN:
        OmegaConf.update(config, name, "new/folder")
    make_absolute(config)
    for name in READ:
        assert OmegaConf.select(config, name) == str(here / "there"), name
    for name in WRITTEN:
        assert OmegaConf.select(config, name) == str(here / "new" / "folder"), name


@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("here.parquet", "{here}/here.parquet"),
        ("~/here.parquet", "{here}/here.parquet"),
        ("./a/../here.parquet", "{here}/here.parquet"),
        ("Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-Math-7B"),
        ("pkg://rsp_rl.grading.reward", "pkg://rsp_rl.grading.reward"),
        ("hdfs://host/file.parquet", "hdfs://host/file.parquet"),
        ("/nowhere/file.parquet", "/nowhere/file.parquet"),
    ],
)
def test_what_becomes_of_a_path(here: Path, path: str, becomes: str) -> None:
    (here / "here.parquet").touch()
    config = OmegaConf.create({"data": {"train_files": [path], "val_files": path}})
    make_absolute(config)
    wanted = becomes.format(here=here)
    assert config == {"data": {"train_files": [wanted], "val_files": wanted}}


def test_paths_made_of_the_runs_folder_follow_it(here: Path) -> None:
    config = compose_config("tiny_cpu", ["run_dir=runs/x"])
    make_absolute(config)
    assert config.trainer.default_local_dir == str(here / "runs" / "x" / "checkpoints")
