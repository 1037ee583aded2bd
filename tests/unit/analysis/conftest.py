"""A random tiny model that answered a few problems, with soft prompts of every position."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rsp_rl.analysis.conditions import Condition, open_conditions, position_name
from rsp_rl.cli import main
from rsp_rl.placement.prompt import POSITIONS
from tests.digit_model import make_digit_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of four layers that writes digits."""
    torch.set_num_threads(1)
    return make_digit_model(tmp_path_factory.mktemp("model") / "tiny", num_layers=4)


@pytest.fixture(scope="session")
def answered(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Condition]:
    """Greedy answers to eight problems by position, as the console command makes them."""
    root = tmp_path_factory.mktemp("made")
    command = ["analyze", "evaluate", "positions", "rsp.length=4", "benchmarks.arithmetic.limit=8"]
    command += ["--model", str(model), "--protocol", "tiny", "--engine", "huggingface"]
    assert main([*command, "--dtype", "float32", "--output", str(root)]) == 0
    texts = [str(root / name) for name in ("baseline", *POSITIONS)]
    return {condition.name: condition for condition in open_conditions(texts, position_name)}
