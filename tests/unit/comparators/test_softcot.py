"""SoftCoT: the projection of an assistant's hidden states, and a tiny model's loss falling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.softcot import (
    Assistant,
    ProjectedThoughts,
    SoftCotTraining,
    negative_log_likelihood,
    resolve_assistant,
    train,
)
from rsp_rl.comparators.solutions import read_solutions
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.requests import Request
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.placement.prompt import placeholder_id
from tests.tolerances import FORWARD, rounding
from tests.unit.comparators.conftest import assert_frozen, request, weights

SETTINGS = SoftCotTraining(length=2, epochs=8, batch_size=4, learning_rate=5e-2)


@pytest.fixture
def thinker(assistant: Path, engine: HuggingFaceEngine) -> Assistant:
    return Assistant(assistant, engine.host)


@pytest.fixture
def solved(engine: HuggingFaceEngine, solutions: Path) -> list[tuple[Request, list[int]]]:
    return [
        (
            request(engine, problem.question, length=SETTINGS.length, position="infix"),
            engine.host.tokenizer.encode(problem.solution),
        )
        for problem in read_solutions(solutions)
    ]


def test_thoughts_are_the_assistants_last_hidden_states(
    thinker: Assistant, assistant: Path
) -> None:
    seen: list[torch.Tensor] = []
    thinker._network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    thoughts = thinker.thoughts("Compute 1+2.", 3)
    network = AutoModelForCausalLM.from_pretrained(assistant, dtype=torch.float32).eval()
    with torch.no_grad():
        states = network(seen[0], output_hidden_states=True).hidden_states[-1]
    assert thoughts.shape == (3, 64)
    torch.testing.assert_close(thoughts, states[0, -3:], rtol=0, atol=FORWARD)
    tokenizer = thinker._tokenizer
    assert seen[0][0, -3:].tolist() == [placeholder_id(tokenizer)] * 3
    text = tokenizer.decode(seen[0][0])
    assert "Problem: Compute 1+2.<|im_end|>\n<|im_start|>assistant\nHere are 3 tokens" in text
    assert not torch.equal(thoughts, thinker.thoughts("Compute 1+3.", 3))


def test_rows_are_their_projection(thinker: Assistant, engine: HuggingFaceEngine) -> None:
    projection = torch.nn.Linear(64, engine.host.hidden_size).requires_grad_(False)
    rows = ProjectedThoughts(thinker, projection).rows(request(engine, length=3))
    by_hand = thinker.thoughts("Compute 1+2.", 3) @ projection.weight.T + projection.bias
    torch.testing.assert_close(rows, by_hand, rtol=0, atol=FORWARD)


def test_loss_by_hand() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]).log()
    found = negative_log_likelihood(logits, torch.tensor([0, 1]))
    wanted = torch.tensor([2.0, 8.0]).log()
    torch.testing.assert_close(found, wanted, rtol=0, atol=rounding(8, size=3))


def test_the_loss_of_solutions_falls(
    engine: HuggingFaceEngine, thinker: Assistant, solved: list[tuple[Request, list[int]]]
) -> None:
    before, of_assistant = weights(engine.host.network), weights(thinker._network)
    tensors, course = train(engine.host, thinker, solved, SETTINGS)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "weight": (engine.host.hidden_size, 64),
        "bias": (engine.host.hidden_size,),
    }
    assert len(course) == 8
    assert course[-1] < course[0] - 0.1
    assert_frozen(engine.host.network, before)
    assert_frozen(thinker._network, of_assistant)


def test_seeds_make_it_repeatable(
    engine: HuggingFaceEngine, thinker: Assistant, solved: list[tuple[Request, list[int]]]
) -> None:
    settings = SoftCotTraining(length=2, epochs=1)
    first, again = (train(engine.host, thinker, solved, settings)[0] for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = SoftCotTraining(length=2, epochs=1, seed=1)
    assert not torch.equal(train(engine.host, thinker, solved, other)[0]["weight"], first["weight"])


def test_no_problems_and_no_assistant(
    engine: HuggingFaceEngine, thinker: Assistant, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no solved problems to train on"):
        train(engine.host, thinker, [], SETTINGS)
    gone = tmp_path / "gone"
    with pytest.raises(ConfigError, match=r"assistant model .*gone.* --assistant where it is tr"):
        resolve_assistant(str(gone))


def test_an_assistant_without_a_chat_template(thinker: Assistant) -> None:
    thinker._tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        thinker.thoughts("Compute 1+2.", 3)
    with pytest.raises(ValueError, match="no chat template"):
        place_in_chat(thinker._tokenizer, [{"role": "user", "content": "x"}], 1)


# Solutions.


def test_solutions_in_gsm8k_form(tmp_path: Path) -> None:
    file = tmp_path / "solved.jsonl"
    rows = [
        {"question": " 1+1? ", "answer": "1+1=2\n#### 2"},
        {"question": "2+2?", "answer": "\\boxed{4}"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_solutions(file)
    assert first.question == "1+1?"
    assert first.solution == "1+1=2\nTherefore, the final answer is \\boxed{2}."
    assert second.solution == "\\boxed{4}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"question": "a", "answer": "b"}\n{"question": "a"}\n', r"line 2 has no .*'answer'"),
        ("nothing\n", "line 1 has no 'question' and 'answer'"),
        ('{"question": "a", "answer": 4}\n', "line 1 .*must be text"),
        ('{"question": "a", "answer": " "}\n', "line 1 .*must be text"),
        ("[1]\n", "line 1"),
        ('{"question": "a\\ud83d", "answer": "4"}\n', "line 1 .*half a character"),
        (None, "cannot be read"),
    ],
)
def test_files_without_solutions(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "solved.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_solutions(file)
