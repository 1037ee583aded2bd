"""A thin slice of `scripts/bench`: fails when RSP costs more than its goals allow.

What can be counted is counted (bytes, tokens, tensors); the few times are ratios taken in turn and
may exceed their goal by the noise that was measured with them. The prefix cache's hits are in
`test_vllm.py`, where there is an engine.
"""

from __future__ import annotations

import pytest
import torch
from draw_and_hook import (
    GOAL_DRAW,
    GOAL_ROWS,
    GOAL_SHARE,
    LAYOUTS,
    Work,
    make_record,
    measure_draw,
    measure_hook,
    normals,
)
from rollout_prompts import Journey, floor_bytes

ROUNDS = 3


@pytest.fixture(scope="module")
def work() -> Work:
    """Less work than any real forward of this width does, so that the hook weighs more."""
    torch.set_num_threads(1)
    return Work.make(hidden_size=896, layers=2, tokens=512, sequences=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_hook_is_nothing_beside_the_forward(work: Work, layout: str) -> None:
    measured = measure_hook(work, layout, ROUNDS)
    assert measured["share"] <= GOAL_SHARE + measured["share_noise"]
    assert max(measured["extra_memory_over_rows"].values()) <= GOAL_ROWS


def test_a_draw_is_its_normals() -> None:
    measured = measure_draw(make_record(0, 0), 3584, normals(3584), ROUNDS)
    assert measured["value"] <= GOAL_DRAW + measured["noise"]


@pytest.mark.parametrize("hidden_size", [128, 3584])
@pytest.mark.parametrize("length", [64, 2048])
def test_a_request_brings_its_tokens_and_its_record(hidden_size: int, length: int) -> None:
    sizes = {
        way: Journey(way, length, hidden_size, "bfloat16").size for way in ("tokens", "record")
    }
    assert sizes["record"] <= floor_bytes(sizes["tokens"], length)
