"""Requests on their way into vLLM's engine."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from vllm import SamplingParams

from rsp_rl.draws.record import EXTRA_ARG, RECORD_SIZE, SoftPromptRecord
from rsp_rl.injection.vllm_prompt import WORKER, mixed_prompt, prompt_maker

WIDTH = 8
RECORD = SoftPromptRecord(
    seed=3, start=1, length=2, mean=0.0, std=1.0, dtype="float32", placeholder_id=9
)
FIRST_TURN = [5, 9, 9, 6]


@pytest.fixture
def generate():
    """The wrapper round a `generate` that gives back what it got."""
    from rsp_rl.training.verl_plugin.rollout_server import with_soft_prompts

    make_prompt = partial(mixed_prompt, hidden_size=WIDTH)
    return with_soft_prompts(lambda **request: request, make_prompt)


def _request(generate, token_ids: list[int], extra_args: dict | None) -> dict:
    parameters = SamplingParams(extra_args=extra_args)
    return generate(prompt={"prompt_token_ids": token_ids}, sampling_params=parameters, priority=1)


def test_every_turn_of_a_rollout_gets_its_soft_prompt(generate) -> None:
    """Requests of several turns come with the same arguments."""
    extra_args = {EXTRA_ARG: RECORD.to_dict()}
    for token_ids in (FIRST_TURN, [*FIRST_TURN, 7, 8, 6]):
        request = _request(generate, token_ids, extra_args)
        assert request["prompt"]["prompt_token_ids"] == token_ids
        assert torch.equal(request["prompt"]["prompt_embeds"][1:3], RECORD.draw(WIDTH))
        is_token = request["prompt"]["prompt_is_token_ids"]
        assert [n for n, token in enumerate(is_token) if not token] == [1, 2]
        # vLLM itself is not shown what it does not know.
        assert request["sampling_params"].extra_args is None
        assert request["priority"] == 1
    assert extra_args == {EXTRA_ARG: RECORD.to_dict()}


def test_a_record_of_length_zero_leaves_the_prompt_alone(generate) -> None:
    plain = {**RECORD.to_dict(), "length": 0}
    request = _request(generate, [5, 6], {EXTRA_ARG: plain, "other": 1})
    assert request["prompt"] == {"prompt_token_ids": [5, 6]}
    assert request["sampling_params"].extra_args == {"other": 1}


@pytest.mark.parametrize("extra_args", [None, {"other": 1}])
def test_other_requests_pass_through(generate, extra_args: dict | None) -> None:
    request = _request(generate, FIRST_TURN, extra_args)
    assert request["prompt"] == {"prompt_token_ids": FIRST_TURN}
    assert request["sampling_params"].extra_args == extra_args


@pytest.mark.parametrize(
    ("given", "worker"),
    [
        ({"enable_prompt_embeds": True}, WORKER),
        ({"enable_prompt_embeds": True, "worker_cls": "auto"}, "auto"),
        ({"enable_prompt_embeds": None}, None),
        ({}, None),
    ],
)
def test_workers_draw_exactly_where_there_are_soft_prompts(given: dict, worker: str | None) -> None:
    from rsp_rl.training.verl_plugin.rollout_server import SoftPromptVLLMServer

    server = object.__new__(SoftPromptVLLMServer)
    server.config = OmegaConf.create({})
    server._preprocess_engine_kwargs(given)
    assert given.get("worker_cls") == worker


@pytest.mark.parametrize(("worker", "width"), [(WORKER, RECORD_SIZE), ("auto", WIDTH)])
def test_prompts_are_what_the_workers_understand(worker: str, width: int) -> None:
    config = SimpleNamespace(
        parallel_config=SimpleNamespace(worker_cls=worker),
        model_config=SimpleNamespace(get_hidden_size=lambda: WIDTH),
    )
    prompt = prompt_maker(config)(FIRST_TURN, RECORD)
    assert prompt["prompt_embeds"].shape == (len(FIRST_TURN), width)


def test_vllm_finds_the_worker_by_its_name() -> None:
    from vllm.utils.import_utils import resolve_obj_by_qualname
    from vllm.v1.worker.worker_base import WorkerBase

    assert issubclass(resolve_obj_by_qualname(WORKER), WorkerBase)
