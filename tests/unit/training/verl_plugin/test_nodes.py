"""Model and data must be on every node, and the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import ray
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from rsp_rl.basics.errors import ConfigError
from rsp_rl.runs.data_order import file_digests
from rsp_rl.training.verl_plugin.nodes import (
    check_data,
    check_model,
    check_nodes,
    model_digest,
    models_on,
)

NAMES = ("train", "val")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"weight": torch.zeros(3)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def config(tmp_path: Path, model: Path) -> DictConfig:
    for name in NAMES:
        (tmp_path / f"{name}.parquet").write_text(name)
    made = OmegaConf.create(
        {
            "data": {
                f"{name}_files": str(tmp_path / f"{name}.parquet") for name in ("train", "val")
            },
            "actor_rollout_ref": {"model": {"path": str(model)}},
            "trainer": {"v1": {"rsp_sync": {"data_read": None}}},
        }
    )
    made.trainer.v1.rsp_sync.data_read = file_digests(made)
    return made


def test_a_copy_is_the_same_model_and_a_change_is_another(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    assert model_digest(copy) == model_digest(model)
    (copy / "tokenizer.json").write_text("{}")
    assert model_digest(copy) != model_digest(model)
    other = shutil.copytree(model, tmp_path / "other")
    save_file({"weight": torch.ones(3)}, other / "model.safetensors")
    assert model_digest(other) != model_digest(model)
    assert model_digest(tmp_path / "nowhere") is None


def test_a_node_without_the_model_or_with_another_is_named() -> None:
    check_model("/m", {"10.0.0.1": "aa", "10.0.0.2": "aa"})
    with pytest.raises(ConfigError, match=r"path=/m is not on 10\.0\.0\.2; put it on a disk"):
        check_model("/m", {"10.0.0.1": "aa", "10.0.0.2": None})
    with pytest.raises(ConfigError, match=r"not the same model .*10\.0\.0\.1: aa, 10\.0\.0\.2: bb"):
        check_model("/m", {"10.0.0.1": "aa", "10.0.0.2": "bb"})


def test_data_where_the_trainer_runs(config: DictConfig) -> None:
    check_data(config, "10.0.0.2")
    file = Path(config.data.train_files)
    file.write_text("another")
    with pytest.raises(ConfigError, match=r"train_files holds other bytes on 10\.0\.0\.2"):
        check_data(config, "10.0.0.2")
    file.unlink()
    with pytest.raises(ConfigError, match=r"train\.parquet of .* is not on 10\.0\.0\.2, where"):
        check_data(config, "10.0.0.2")


def test_rays_nodes_are_asked(config: DictConfig, model: Path) -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80_000_000)
    try:
        check_nodes(config)
        (node,) = ray.nodes()
        nodes = {node["NodeID"]: "10.0.0.1"}
        assert models_on(nodes, str(model)) == {"10.0.0.1": model_digest(model)}
        assert models_on(nodes, "/nowhere") == {"10.0.0.1": None}
    finally:
        ray.shutdown()
