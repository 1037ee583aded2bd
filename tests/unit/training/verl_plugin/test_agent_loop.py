"""Numbering of rollouts, and which agent loops place soft prompts."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.draws.record import EXTRA_ARG, RECORD_FIELD, SoftPromptRecord
from rsp_rl.placement.chat import question_in_chat
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preflight import AGENT_LOOPS
from rsp_rl.training.verl_plugin.agent_loop import (
    GroupCounter,
    SoftPromptMixin,
    SoftPromptSingleTurnLoop,
    check_agent_loop,
)
from tests.unit.placement.prompts import QUESTION, asked, plain_ids
from tests.unit.templates import tokenizer_of


def test_repeated_prompts_count_on_within_a_step() -> None:
    counter = GroupCounter()
    assert counter.starts(1, [5, 7, 5], size=8) == [0, 0, 8]
    # Dynamic sampling fetches more prompts later in the same step.
    assert counter.starts(1, [7, 9], size=8) == [8, 0]
    assert counter.starts(2, [5, 7], size=8) == [0, 0]


@given(
    batches=st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=5), size=st.integers(1, 9)
)
def test_no_two_rollouts_of_a_step_share_a_number(batches: list[list[int]], size: int) -> None:
    counter = GroupCounter()
    rollouts = [
        (index, start + number)
        for batch in batches
        for index, start in zip(batch, counter.starts(3, batch, size), strict=True)
        for number in range(size)
    ]
    assert len(rollouts) == len(set(rollouts))


@given(indices=st.lists(st.integers(0, 3), max_size=8))
def test_a_resumed_step_numbers_as_the_first_time(indices: list[int]) -> None:
    resumed, uninterrupted = GroupCounter(), GroupCounter()
    uninterrupted.starts(1, [0, 1, 1], size=4)
    assert resumed.starts(2, indices, 4) == uninterrupted.starts(2, indices, 4)


# Agent loops.


class MyLoop(SoftPromptMixin, ToolAgentLoop):
    """A user's own."""


@pytest.mark.parametrize("name", AGENT_LOOPS)
def test_verls_loops_place_soft_prompts(name: str) -> None:
    check_agent_loop(name)


def test_other_loops_need_the_mixin(tmp_path: Path) -> None:
    loops = tmp_path / "loops.yaml"
    loops.write_text(
        f"- name: mine\n  _target_: {__name__}.MyLoop\n"
        "- name: plain\n  _target_: verl.experimental.agent_loop.tool_agent_loop.ToolAgentLoop\n"
    )
    check_agent_loop("mine", str(loops))
    with pytest.raises(ConfigError, match=r"'plain' .* places no soft prompts.*SoftPromptMixin"):
        check_agent_loop("plain", str(loops))
    with pytest.raises(ConfigError, match="'mine' is not registered"):
        check_agent_loop("mine")


# A loop's prompt, and its record.


class Server:
    """Stands for verl's client: keeps what is asked, and answers anything."""

    def __init__(self) -> None:
        self.requests: list[tuple[list[int], dict]] = []

    async def generate(self, request_id, *, prompt_ids, sampling_params, **kwargs):
        from verl.workers.rollout.replica import TokenOutput

        self.requests.append((list(prompt_ids), dict(sampling_params)))
        return TokenOutput(token_ids=[5, 6], log_probs=[-1.0, -1.0])


def run_loop(*overrides: str, **place: int):
    """One rollout of `QUESTION`; its output, and the only request."""
    from verl.experimental.agent_loop.agent_loop import DictConfigWrap
    from verl.utils.dataset.rl_dataset import RLHFDataset

    rollout = "actor_rollout_ref.rollout"
    lengths = [f"{rollout}.prompt_length=256", f"{rollout}.response_length=8"]
    config = compose_config("tiny_cpu", [*lengths, "rsp.mean=0", "rsp.std=1", *overrides])
    server = Server()

    async def run():
        loop = SoftPromptSingleTurnLoop(
            trainer_config=DictConfigWrap(config),
            server_manager=server,
            tokenizer=tokenizer_of("chatml"),
            processor=None,
            dataset_cls=RLHFDataset,
            data_config=DictConfigWrap(config.data),
        )
        return await loop.run({"temperature": 1.0}, raw_prompt=asked(QUESTION), **place)

    return asyncio.run(run()), *server.requests


PLACE = {
    "global_steps": 3,
    "session_id": 1,
    "rsp_validation": 0,
    "rsp_prompt_index": 7,
    "rsp_group_start": 0,
}
NOISE = ("rsp.law=question_noise", "rsp.length=0", "rsp.scale=5")


def test_noise_on_the_question_leaves_the_prompt_as_it_is() -> None:
    output, (tokens, sampling) = run_loop(*NOISE, **PLACE)
    tokenizer = tokenizer_of("chatml")
    assert tokens == output.prompt_ids == plain_ids(tokenizer, asked(QUESTION))
    record = SoftPromptRecord.from_tensor(output.rsp_records[RECORD_FIELD])
    assert SoftPromptRecord(**sampling["extra_args"][EXTRA_ARG]) == record
    found = question_in_chat(tokenizer, asked(QUESTION))
    assert (record.start, record.length) == (found.start, found.length)
    assert record.stands_at(tokens[record.start : record.start + record.length])
    assert (record.law, record.mean, record.std) == ("question_noise", 0.0, 5.0)
    assert record.added_to


def test_noise_of_an_alpha_of_0_is_a_plain_rollout() -> None:
    output, (tokens, sampling) = run_loop(*NOISE, "rsp.scale=0", **PLACE)
    plain, (plain_tokens, plain_sampling) = run_loop("rsp.length=0", **PLACE)
    assert (tokens, sampling) == (plain_tokens, plain_sampling)
    assert output.rsp_records == plain.rsp_records == {}


@pytest.mark.parametrize("session", [0, 1])
def test_half_of_a_group_has_noise(session: int) -> None:
    output, (tokens, _) = run_loop(*NOISE, "rsp.mixing=half", **PLACE | {"session_id": session})
    record = SoftPromptRecord.from_tensor(output.rsp_records[RECORD_FIELD])
    assert bool(record.length) == (session == 0)
    assert tokens == plain_ids(tokenizer_of("chatml"), asked(QUESTION))


def test_a_question_that_is_too_long_is_refused_as_ever() -> None:
    with pytest.raises(PlacementError, match="0 of them RSP, exceeds"):
        run_loop(*NOISE, "actor_rollout_ref.rollout.prompt_length=4", **PLACE)
