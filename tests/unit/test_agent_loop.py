"""Numbering of rollouts: what keeps the seeds of a run apart, and a resumed run the same."""

from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.verl_plugin.agent_loop import GroupCounter


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
