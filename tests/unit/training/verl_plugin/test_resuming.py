"""Rollouts that an update interrupts: what goes along with them, and what must not be the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from rsp_rl.thoughts.record import THOUGHT_FIELD
from rsp_rl.thoughts.settings import EXTRA_ARG, SO_FAR
from rsp_rl.training.verl_plugin import resuming
from rsp_rl.training.verl_plugin.resuming import (
    VERSION_FIELD,
    ResumingClient,
    Turns,
    resumed_seed,
)

LONGEST = 8


class Server:
    """In verl's server's place: gives so many tokens a request, each time of another policy."""

    def __init__(self, *parts: tuple[int, str]) -> None:
        self.parts = list(parts)
        self.asked: list[dict[str, Any]] = []

    async def generate(self, client: LLMServerClient, request_id: str, **asked: Any) -> TokenOutput:
        self.asked.append(asked)
        count, reason = self.parts[len(self.asked) - 1]
        version = len(self.asked) - 1
        first = 10 * len(self.asked)
        fields: dict[str, Any] = {"global_steps": version}
        if EXTRA_ARG in (asked["sampling_params"].get("extra_args") or {}) and count:
            fields[THOUGHT_FIELD] = f"record after request {version}".encode()
        return TokenOutput(
            token_ids=[*range(first, first + count)],
            log_probs=[-1.0] * count,
            stop_reason=reason,
            extra_fields=fields,
        )


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        return

    monkeypatch.setattr("verl.workers.rollout.llm_server.asyncio.sleep", at_once)


def _asked(
    monkeypatch: pytest.MonkeyPatch, server: Server, **sampling_params: Any
) -> tuple[TokenOutput, dict[str, Any]]:
    async def generate(self: LLMServerClient, request_id: str, **asked: Any) -> TokenOutput:
        return await server.generate(self, request_id, **asked)

    monkeypatch.setattr(LLMServerClient, "generate", generate)
    rollout = {"response_length": LONGEST}
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}})
    client = ResumingClient(config, None)
    params = {"temperature": 1.0, **sampling_params}
    output = asyncio.run(client.generate("r", prompt_ids=[1, 2], sampling_params=params))
    return output, params


@pytest.mark.usefixtures("no_wait")
def test_a_rollout_goes_on_and_says_whose_its_tokens_are(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server((3, "aborted"), (0, "aborted"), (2, "completed"))
    output, params = _asked(monkeypatch, server, seed=5, extra_args={"rsp_rl": {"seed": 9}})
    assert output.token_ids == [10, 11, 12, 30, 31]
    assert output.extra_fields[VERSION_FIELD] == [0, 0, 0, 2, 2]
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (
        0,
        2,
    )
    assert [asked["prompt_ids"] for asked in server.asked] == [
        [1, 2],
        [1, 2, 10, 11, 12],
        [1, 2, 10, 11, 12],
    ]
    sent = [asked["sampling_params"] for asked in server.asked]
    assert all(one["extra_args"] == {"rsp_rl": {"seed": 9}} for one in sent)
    assert [one["seed"] for one in sent] == [5, resumed_seed(5, 3), resumed_seed(5, 3)]
    assert [one["max_tokens"] for one in sent] == [LONGEST, LONGEST - 3, LONGEST - 3]
    assert params == {"temperature": 1.0, "seed": 5, "extra_args": {"rsp_rl": {"seed": 9}}}


@pytest.mark.usefixtures("no_wait")
def test_without_a_seed_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server((3, "aborted"), (1, "completed"))
    _asked(monkeypatch, server)
    assert all("seed" not in asked["sampling_params"] for asked in server.asked)


@pytest.mark.usefixtures("no_wait")
def test_thoughts_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of all so far, also through a request that came to nothing."""
    server = Server((2, "aborted"), (0, "aborted"), (2, "completed"))
    output, params = _asked(monkeypatch, server, extra_args={EXTRA_ARG: {"seed": 9}})
    sent = [asked["sampling_params"]["extra_args"][EXTRA_ARG] for asked in server.asked]
    first = b"record after request 0"
    assert sent == [{"seed": 9}, {"seed": 9, SO_FAR: first}, {"seed": 9, SO_FAR: first}]
    assert output.extra_fields[THOUGHT_FIELD] == b"record after request 2"
    assert params["extra_args"] == {EXTRA_ARG: {"seed": 9}}


def test_seeds_of_what_goes_on_are_all_different() -> None:
    seeds = {resumed_seed(seed, tokens) for seed in range(40) for tokens in range(1, 40)}
    assert len(seeds) == 40 * 39
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_policies_of_a_responses_positions() -> None:
    """A tool's tokens are nobody's, and of a response that was cut the last ones are not there."""

    class Client:
        versions = iter([[0, 0, 1], [1, 2]])

        async def generate(self, *_: Any, **__: Any) -> TokenOutput:
            fields = {VERSION_FIELD: next(self.versions)}
            return TokenOutput(token_ids=[0] * len(fields[VERSION_FIELD]), extra_fields=fields)

    turns = Turns(Client())  # type: ignore[arg-type]
    for _ in range(2):
        output = asyncio.run(turns.generate("r"))
        assert VERSION_FIELD not in output.extra_fields
    found = turns.of_response([1, 1, 1, 0, 0, 1, 1])
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 0, 1, -1, -1, 1, 2]
    assert turns.of_response([1, 1, 1, 0, 0, 1]).tolist() == [0, 0, 1, -1, -1, 1]
    with pytest.raises(ValueError, match="has 6 sampled tokens, and its turns made 5"):
        turns.of_response([1] * 6)


def test_verl_still_asks_beneath() -> None:
    """The order of bases that puts ours between verl's two clients."""
    names = [kind.__name__ for kind in ResumingClient.__mro__]
    assert names.index("FullyAsyncLLMServerClient") < names.index("_EachRequest")
    assert names.index("_EachRequest") < names.index("LLMServerClient")
    assert resuming.VERSION_FIELD == "rsp_versions"
