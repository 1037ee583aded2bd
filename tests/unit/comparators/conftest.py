"""A random tiny model, an assistant of another width, and prompts with places for soft prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rsp_rl.data import arithmetic
from rsp_rl.data.templates import get_template
from rsp_rl.dials.options import RspOptions
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.prompts import Sampling, Seeds, sample_requests
from rsp_rl.inference.requests import EngineOptions, Request
from rsp_rl.tiny import make_tiny_model
from tests.digit_model import make_digit_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return make_digit_model(tmp_path_factory.mktemp("host") / "tiny")


@pytest.fixture(scope="session")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assistant") / "small"
    return make_tiny_model(folder, steps=0, seed=3, hidden_size=64, threads=1)


@pytest.fixture(scope="session")
def solutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight solved problems, as `read_solutions` reads them."""
    file = tmp_path_factory.mktemp("data") / "solved.jsonl"
    rows = [
        {"question": problem.question, "answer": problem.reasoned_solution}
        for problem in arithmetic.generate("train", 8)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def engine(model: Path) -> HuggingFaceEngine:
    return HuggingFaceEngine(model, EngineOptions(kind="huggingface", dtype="float32"))


def request(
    engine: HuggingFaceEngine,
    question: str = "Compute 1+2.",
    *,
    length: int = 4,
    position: str = "suffix",
    seed: int = 0,
    temperature: float = 0.0,
    max_tokens: int = 8,
) -> Request:
    """A question's request, its L placeholders at the position."""
    tokenizer, template = engine.host.tokenizer, get_template("plain-chat")
    placed = template.place(tokenizer, question, length, position)
    stop = (template.end_of_turn(tokenizer),)
    sampling = Sampling(temperature, 1.0, 0, max_tokens, (), stop)
    rsp = RspOptions(length=length, position=position, mean=0.0, std=1.0)
    (made,) = sample_requests(placed, tokenizer, rsp, sampling, [Seeds(seed, seed)], "float32")
    return Request(made.number, made.token_ids, made.sampling, made.record, question)


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.clone() for parameter in network.parameters()]


def assert_frozen(network: torch.nn.Module, before: list[torch.Tensor]) -> None:
    """Every parameter is what it was, bit for bit, and has no gradient."""
    for parameter, old in zip(network.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None
