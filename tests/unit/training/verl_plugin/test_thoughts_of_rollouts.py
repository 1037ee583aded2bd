"""A rollout's thoughts on their way: asked for, pulled by the server, put into its sample."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
import torch
from vllm import SamplingParams

from rsp_rl.basics.errors import ConfigError, GenerationError
from rsp_rl.draws.record import EXTRA_ARG, RECORD_FIELD, RECORD_SIZE, SoftPromptRecord
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.record import KIND_FIELD, THOUGHT_FIELD, ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.thoughts.settings import EXTRA_ARG as THOUGHT_ARG
from rsp_rl.thoughts.settings import Thinking

LAW = Multiplex(k=2)
PROMPT, RESPONSE = [5, 6, 7], [9, 8, 4, 3]


def make_record(start: int = 3) -> ThoughtRecord:
    """Two thoughts, a forced token, an answer's."""
    ids = torch.tensor([[9, 1], [8, 2]])
    thoughts = Rows.of_kind(Kind.MIX, ids, torch.full((2, 2), 0.5))
    forced = Rows.tokens(Kind.FORCED, [4], like=thoughts)
    answer = Rows.tokens(Kind.TOKEN, [3], like=thoughts)
    return ThoughtRecord(LAW, 1, start, concatenate([thoughts, forced, answer]))


# ---- the agent loop -----------------------------------------------------------------------------


def make_output(encoded: bytes | None, response: list[int] = RESPONSE):
    from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

    return AgentLoopOutput(
        prompt_ids=PROMPT,
        response_ids=response,
        response_mask=[1] * len(response),
        metrics=AgentLoopMetrics(),
        extra_fields={} if encoded is None else {THOUGHT_FIELD: encoded},
    )


@pytest.mark.parametrize("length", [4, 3])
def test_a_record_becomes_fields_of_its_sample(length: int) -> None:
    """verl cuts a response off where it is too long."""
    from rsp_rl.training.verl_plugin.agent_loop import SoftPromptAgentLoopOutput, taken_thoughts

    output = make_output(make_record().to_bytes(), RESPONSE[:length])
    fields = taken_thoughts(output)
    assert ThoughtRecord.from_tensor(fields[THOUGHT_FIELD]).to_bytes() == (
        make_record().cut(length).to_bytes()
    )
    assert fields[KIND_FIELD].tolist() == [Kind.MIX, Kind.MIX, Kind.FORCED, Kind.TOKEN][:length]
    assert output.response_mask == [1, 1, 0, 1][:length]
    assert THOUGHT_FIELD not in output.extra_fields
    sample = SoftPromptAgentLoopOutput(
        **{name: getattr(output, name) for name in output.model_fields_set}, rsp_records=fields
    ).as_dict()
    assert sample[THOUGHT_FIELD] is fields[THOUGHT_FIELD]
    assert RECORD_FIELD not in sample
    assert "rsp_records" not in sample


@pytest.mark.parametrize(
    ("encoded", "response", "message"),
    [
        (None, RESPONSE, "without the record of its thoughts"),
        (make_record().to_bytes(), [9, 8, 5, 3], "differ at position 2"),
        (make_record().to_bytes(), [*RESPONSE, 3], "differ at position 4"),
        (make_record(start=2).to_bytes(), RESPONSE, "begin at position 2, and its prompt has 3"),
    ],
)
def test_another_outputs_record_is_an_error(encoded, response, message: str) -> None:
    from rsp_rl.training.verl_plugin.agent_loop import taken_thoughts

    with pytest.raises(ValueError, match=message):
        taken_thoughts(make_output(encoded, response))


def test_loops_of_several_turns_are_refused() -> None:
    from rsp_rl.training.verl_plugin.agent_loop import check_agent_loop

    check_agent_loop("single_turn_agent", with_law=True)
    with pytest.raises(ConfigError, match="sends thoughts back as tokens"):
        check_agent_loop("tool_agent", with_law=True)


# ---- the server ---------------------------------------------------------------------------------


class Engine:
    """vLLM's, as far as a server asks it for records."""

    def __init__(self, found: bytes | None) -> None:
        self.found, self.asked = found, []

    async def collective_rpc(self, method: str, args: tuple) -> list:
        self.asked.append((method, *args))
        return [[None], [self.found]]  # of two workers one has it


def serve(monkeypatch, engine: Engine, sampling: dict, fails: bool = False):
    """One request; what vLLM was asked, and what came back."""
    from verl.workers.rollout.replica import TokenOutput
    from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer

    from rsp_rl.training.verl_plugin.rollout_server import SoftPromptVLLMServer

    sent = []

    async def generate(self, prompt_ids, sampling_params, request_id):
        sent.append(sampling_params)
        if fails:
            raise RuntimeError("no memory")
        return TokenOutput(token_ids=RESPONSE[:3])

    monkeypatch.setattr(vLLMHttpServer, "generate", generate)
    server = object.__new__(SoftPromptVLLMServer)
    server.engine = engine
    output = asyncio.run(server.generate(PROMPT, sampling_params=sampling, request_id="a"))
    return sent[0], output


def thinking() -> dict:
    return Thinking(LAW, Phases(end_ids=(2,)), 7).to_dict()


def test_the_server_pulls_the_record_by_a_key_of_its_own(monkeypatch) -> None:
    engine = Engine(make_record().to_bytes())
    sampling = {"extra_args": {THOUGHT_ARG: thinking(), "other": 1}}
    sent, output = serve(monkeypatch, engine, sampling)
    key = sent["extra_args"][THOUGHT_ARG]["key"]
    assert engine.asked == [("take_thoughts", [key])]
    assert sent["extra_args"]["other"] == 1
    assert "key" not in sampling["extra_args"][THOUGHT_ARG]  # the caller's own
    # The engine may have gone on after a stop.
    assert output.extra_fields[THOUGHT_FIELD] == make_record().cut(3).to_bytes()
    again, _ = serve(monkeypatch, engine, sampling)
    assert again["extra_args"][THOUGHT_ARG]["key"] != key


def test_other_requests_ask_for_nothing(monkeypatch) -> None:
    engine = Engine(None)
    for sampling in ({}, {"extra_args": None}, {"extra_args": {EXTRA_ARG: {}}}):
        sent, output = serve(monkeypatch, engine, sampling)
        assert sent == sampling
        assert THOUGHT_FIELD not in output.extra_fields
    assert engine.asked == []


def test_a_lost_record_is_an_error_and_a_failed_request_leaves_none(monkeypatch) -> None:
    sampling = {"extra_args": {THOUGHT_ARG: thinking()}}
    with pytest.raises(GenerationError, match="no record of a rollout's thoughts"):
        serve(monkeypatch, Engine(None), sampling)
    engine = Engine(None)
    with pytest.raises(RuntimeError, match="no memory"):
        serve(monkeypatch, engine, sampling, fails=True)
    assert [method for method, _ in engine.asked] == ["drop_thoughts"]


@pytest.mark.parametrize("length", [0, 2])
def test_thinking_requests_have_private_blocks(monkeypatch, length: int) -> None:
    from rsp_rl.training.verl_plugin import rollout_server

    checked = []
    monkeypatch.setattr(rollout_server, "check_engine", checked.append)
    monkeypatch.setattr(rollout_server, "check_request", lambda *args: checked.append(args))
    config = SimpleNamespace()
    generate = rollout_server.with_thoughts(lambda **request: request, config)
    record = SoftPromptRecord(3, 1, length, 0.0, 1.0, "float32", 9)
    token_ids = [5, 9, 9, 6][: 2 + length]
    extra_args = {THOUGHT_ARG: {**thinking(), "key": 77}, EXTRA_ARG: record.to_dict()}
    parameters = SamplingParams(extra_args=extra_args)
    request = generate(prompt={"prompt_token_ids": token_ids}, sampling_params=parameters)
    assert request["prompt"]["prompt_token_ids"] == token_ids
    rows = request["prompt"]["prompt_embeds"]
    assert rows.dtype == torch.int64
    assert rows[-1, -1] == 77
    assert rows.shape[1] == (RECORD_SIZE + 1 if length else 1)
    # The worker needs the law; the soft prompt is in the rows.
    assert set(request["sampling_params"].extra_args) == {THOUGHT_ARG}
    assert checked[0] is config
    assert checked[1][1] == Thinking(LAW, Phases(end_ids=(2,)), 7)


def test_plain_requests_pass_through() -> None:
    from rsp_rl.training.verl_plugin.rollout_server import with_thoughts

    generate = with_thoughts(lambda **request: request, SimpleNamespace())
    request = {"prompt": {"prompt_token_ids": [1]}, "sampling_params": SamplingParams()}
    assert generate(**request) == request
