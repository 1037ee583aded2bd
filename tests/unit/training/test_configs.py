"""verl's configs are found without verl, by our entry points and by a user's own config."""

from __future__ import annotations

import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import CONFIGS
from rsp_rl.training import configs


def test_the_folder_is_that_of_verls_package() -> None:
    configs.name_verl_configs()
    found = OmegaConf.create({"path": "${verl_configs:}"}).path
    assert Path(found).samefile(str(importlib.resources.files("verl.trainer.config")))


def test_without_verl_one_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="verl, whose configs ours build on, is not installed"):
        configs.compose_config("dapo_rsp")


@pytest.mark.parametrize("verls", ["file://${verl_configs:}", "pkg://verl.trainer.config"])
def test_a_users_own_config_builds_on_ours(tmp_path: Path, verls: str) -> None:
    """In a folder of the user's, with either way to verl's configs; Hydra's own options work."""
    (tmp_path / "mine.yaml").write_text(
        f"hydra:\n  searchpath: ['{verls}']\n"
        "defaults: [ppo_trainer, objective: dapo, rsp: paper, machine: gpu, _self_]\n"
        "rsp:\n  length: 12\n"
    )
    command = ["-m", "rsp_rl.training.train", "--config-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *command, "--config-name", "mine", "--cfg", "job", "rsp.scale=0.5"],
        capture_output=True,
        text=True,
        check=True,
    )
    # Before the config stands what verl prints when it is imported.
    composed = OmegaConf.create(done.stdout[done.stdout.index("model_engine:") :])
    ours = configs.compose_config("dapo_rsp", ["+machine=gpu", "rsp.length=12", "rsp.scale=0.5"])
    ours.trainer.experiment_name = composed.trainer.experiment_name
    expected = OmegaConf.to_container(ours)
    assert expected.pop("law") == {"name": None}  # a config of before has no such group
    assert OmegaConf.to_container(composed) == expected


def test_a_config_is_composed_beside_a_runs_own() -> None:
    """Types are those of the defaults, which a run looks at while its Hydra is at work."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        at_work = GlobalHydra.instance().hydra
        assert configs.compose_config("tiny_cpu").run_dir
        with pytest.raises(ConfigError, match="does not compose"):
            configs.compose_config("tiny_cpu", ["no.such=1"])
        assert GlobalHydra.instance().hydra is at_work
    assert not GlobalHydra.instance().is_initialized()
