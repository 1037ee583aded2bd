"""scripts/bench/real_model_training.sh: what it would start for each way of training."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from omegaconf import DictConfig

from rsp_rl.training.configs import compose_config
from rsp_rl.training.thoughts import check_law
from tests.unit.recipes.test_recipes import SHOW_ARGUMENTS

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "bench" / "real_model_training.sh"


def _run(folder: Path, *overrides: str, **variables: str) -> subprocess.CompletedProcess[str]:
    python = folder / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(SHOW_ARGUMENTS)
    python.chmod(0o755)
    known = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    own = {"VENV": str(folder), "OUTPUT": str(folder / "runs"), "MODEL": str(folder), "KEEP": "1"}
    return subprocess.run(
        ["bash", str(SCRIPT), *overrides],
        env={**known, **own, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _calls(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """Arguments of each call of the interpreter."""
    assert done.returncode == 0, done.stderr
    first, *others = f"\0{done.stdout}"[:-1].split("\0-m\0")
    assert not first
    return [call.split("\0") for call in others]


def _config(folder: Path, arm: str) -> DictConfig:
    _, (cli, train, _, name, *overrides), evaluated = _calls(
        _run(folder, ARMS=arm, SEEDS="2", ONLY="train")
    )
    assert (cli, train) == ("rsp_rl.cli", "train")
    assert evaluated[1:3] == ["eval", str(folder / "runs" / arm / "seed_2")]
    config = compose_config(name, overrides)
    assert config.data.seed == config.rsp.seed == 2
    assert config.run_dir == evaluated[2]
    return config


@pytest.mark.parametrize("arm", ["dapo", "dapo_rsp", "dapo_rsp_shared"])
def test_without_thoughts(tmp_path: Path, arm: str) -> None:
    config = _config(tmp_path, arm)
    assert config.law.name is None
    assert config.rsp.length == (0 if arm == "dapo" else 10)
    assert config.rsp.mode == ("shared" if arm == "dapo_rsp_shared" else "independent")


@pytest.mark.parametrize("arm", ["token", "token_rloo", "multiplex", "gumbel", "soft", "fuzzy"])
def test_with_thoughts(tmp_path: Path, arm: str) -> None:
    config = _config(tmp_path, arm)
    check_law(config)
    law = arm.removesuffix("_rloo")
    assert (config.law.name, config.law.end, config.law.end_text) == (law, [], "=")
    assert config.rsp.length == 0
    without_ratio = arm in ("token_rloo", "soft", "fuzzy")
    assert config.algorithm.adv_estimator == ("rloo" if without_ratio else "grpo")


def test_tables_are_of_all_arms_and_seeds(tmp_path: Path) -> None:
    *_, reproduced = _calls(_run(tmp_path, SEEDS="1 2"))
    assert reproduced[1:4] == ["reproduce", "--section", "4.5"]
    at = tmp_path / "runs"
    assert f"DAPO+RSP, shared={at}/dapo_rsp_shared/seed_1,{at}/dapo_rsp_shared/seed_2" in reproduced
    *_, analysed = _calls(_run(tmp_path, SEEDS="1 2", ARMS="token soft"))
    assert analysed[1:3] == ["analyze", "training"]
    assert f"token={at}/token/seed_1,{at}/token/seed_2" == analysed[3]


def test_overrides_are_of_every_run(tmp_path: Path) -> None:
    _, (_, _, _, name, *overrides), _ = _calls(
        _run(tmp_path, "law.sigma=1", ARMS="soft", SEEDS="1", ONLY="train")
    )
    assert compose_config(name, overrides).law.sigma == 1


def test_an_unknown_arm_is_one_line(tmp_path: Path) -> None:
    done = _run(tmp_path, ARMS="token coconut")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ARMS has coconut, which is none of ")
