"""A random tiny model that answered a few problems, with soft prompts of every position."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rsp_rl.analysis.conditions import Condition, open_conditions, position_name
from rsp_rl.cli import main
from rsp_rl.placement import POSITIONS
from rsp_rl.preflight import load_tokenizer
from rsp_rl.tiny import make_tiny_model
from rsp_rl.tiny.tokenizer import END_OF_TURN


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that writes digits alone: text of arbitrary bytes would not encode back."""
    torch.set_num_threads(1)
    folder = make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", steps=0, num_layers=4)
    network = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    written = tokenizer.convert_tokens_to_ids([*"0123456789", END_OF_TURN])
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[written] = False
    with torch.no_grad():
        network.lm_head.weight[silent] = 0
        network.lm_head.weight[written[-1]] /= 2  # or most answers would be empty
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def answered(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Condition]:
    """Greedy answers to eight problems by position, as the console command makes them."""
    root = tmp_path_factory.mktemp("made")
    command = ["analyze", "evaluate", "positions", "rsp.length=4", "benchmarks.arithmetic.limit=8"]
    command += ["--model", str(model), "--protocol", "tiny", "--engine", "huggingface"]
    assert main([*command, "--dtype", "float32", "--output", str(root)]) == 0
    texts = [str(root / name) for name in ("baseline", *POSITIONS)]
    return {condition.name: condition for condition in open_conditions(texts, position_name)}
