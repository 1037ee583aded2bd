"""A random tiny model that answered a few problems, with soft prompts of every position."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rsp_rl.analysis.conditions import Condition, open_conditions, position_name
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.protocol import load_protocol
from rsp_rl.evaluation.runner import evaluate
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.placement import POSITIONS
from rsp_rl.preflight import load_tokenizer
from rsp_rl.tiny import make_tiny_model
from rsp_rl.tiny.tokenizer import END_OF_TURN

ENGINE = EngineOptions(kind="huggingface", dtype="float32")


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
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def answered(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Condition]:
    """Greedy answers to four problems, two a problem with soft prompts, by position."""
    root = tmp_path_factory.mktemp("answered")
    for name in ("baseline", *POSITIONS):
        overrides = ["benchmarks.arithmetic.limit=4"]
        if name != "baseline":
            overrides += ["rsp.length=4", f"rsp.position={name}", "benchmarks.arithmetic.samples=2"]
        step = EvaluationFolder(root / name).step(0)
        evaluate(model, load_protocol("tiny", overrides), step, engine=ENGINE, progress=False)
    names = [str(root / name) for name in ("baseline", *POSITIONS)]
    return {condition.name: condition for condition in open_conditions(names, position_name)}
