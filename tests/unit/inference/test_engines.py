"""Engines that several evaluations share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference import engines
from rsp_rl.inference.engines import SharedEngines
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.requests import EngineOptions, Request
from rsp_rl.injection import model_runner
from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import Thinking
from tests.digit_model import make_digit_model

OPTIONS = EngineOptions(kind="huggingface", dtype="float32", max_num_seqs=2)
SAMPLING = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "max_tokens": 3,
    "stop": [],
    "stop_token_ids": [],
    "seed": 0,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def shared(model: Path) -> Iterator[SharedEngines]:
    with SharedEngines(model, OPTIONS, soft_prompts=True) as made:
        yield made


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[HuggingFaceEngine]:
    """Every engine that is started; they are real ones."""
    found = []

    def start(model: Path, options: EngineOptions, **_: object) -> HuggingFaceEngine:
        found.append(HuggingFaceEngine(model, options))
        return found[-1]

    monkeypatch.setattr(engines, "start_engines", start)
    return found


def queue(*numbers: int) -> list[Request]:
    return [Request(number, [3, 4, 5 + number], SAMPLING) for number in numbers]


def answers(shared: SharedEngines, *numbers: int) -> dict[int, str]:
    batches = shared.generate(queue(*numbers))
    return {done.number: done.text for batch in batches for done in batch}


def test_a_model_runner_that_takes_no_soft_prompts_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before vLLM is imported, which would say so after half a minute; as up to 0.28.0."""
    monkeypatch.setattr(model_runner, "v2_takes_prompt_embeds", lambda: False)
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "1")
    with pytest.raises(ConfigError, match="VLLM_USE_V2_MODEL_RUNNER=1"):
        engines.start_engines(model, EngineOptions(), soft_prompts=True)


def test_one_start_for_several_queues(
    shared: SharedEngines, started: list[HuggingFaceEngine]
) -> None:
    assert not started
    first = answers(shared, 0, 1, 2)
    assert answers(shared, 0, 1, 2) == first
    assert set(answers(shared, 7)) == {7}
    assert len(started) == 1


def test_a_queue_left_half_way_does_not_answer_the_next(
    shared: SharedEngines, started: list[HuggingFaceEngine]
) -> None:
    """Whoever asked stops reading, as a full disk makes it."""
    left = shared.generate(queue(0, 1, 2, 3))
    next(left)
    assert set(answers(shared, 5, 6)) == {5, 6}
    assert len(started) == 2
    shared.close()
    shared.close()  # of nothing
    assert set(answers(shared, 5)) == {5}
    assert len(started) == 3


def test_a_law_needs_engines_that_think(
    shared: SharedEngines, started: list[HuggingFaceEngine], model: Path
) -> None:
    """Whatever kind they are: not every one would notice."""
    thinking = Thinking(Gumbel(k=2), Phases(max_thoughts=2), 1)
    asked = [replace(request, thinking=thinking) for request in queue(0)]
    with pytest.raises(ValueError, match="started without thoughts"):
        next(shared.generate(asked))
    assert not started
    with SharedEngines(model, OPTIONS, soft_prompts=False, thoughts=True) as thinks:
        ((done,),) = thinks.generate(asked)
    assert done.thoughts.law == thinking.law
