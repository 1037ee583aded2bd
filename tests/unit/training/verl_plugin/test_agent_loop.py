"""Numbering of rollouts, and which agent loops place soft prompts."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.preflight import AGENT_LOOPS
from rsp_rl.training.verl_plugin.agent_loop import GroupCounter, SoftPromptMixin, check_agent_loop


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
