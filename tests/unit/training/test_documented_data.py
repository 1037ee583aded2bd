"""The data and the reward of docs/your_own_run.md, taken out of the page and used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rsp_rl.data.prompt_files import check_dataset
from rsp_rl.training.configs import compose_config
from rsp_rl.training.verl_plugin.loading import check_loading

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "your_own_run.md").read_text()


def block(word: str) -> str:
    """The one block of Python that has a word."""
    [found] = [b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if word in b]
    return found


def test_the_file_is_what_training_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("train.jsonl"), "docs/your_own_run.md", "exec"), {})
    assert check_dataset("train.jsonl") == 2


def test_the_reward_is_what_verl_calls(tmp_path: Path) -> None:
    file = tmp_path / "my_reward.py"
    file.write_text(block("def my_score"))
    config = compose_config("tiny_cpu")
    for key, value in {"path": str(file), "name": "my_score"}.items():
        OmegaConf.update(config, f"reward.custom_reward_function.{key}", value)
    check_loading(config)
    names: dict = {}
    exec(file.read_text(), names)
    given = {"data_source": "my_task", "solution_str": "7 * 8 = 56 ", "extra_info": {}}
    assert names["my_score"](ground_truth="56", **given) == {"score": 1.0, "acc": 1.0}
    assert names["my_score"](ground_truth="57", **given) == {"score": 0.0, "acc": 0.0}
