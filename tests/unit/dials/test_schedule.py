"""Courses of a dial over the steps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.dials.schedule import Schedule

ENDS = st.floats(0, 100)
SHAPES = st.sampled_from(["linear", "cosine"])
STEPS = st.integers(2, 500)


@given(shape=SHAPES, start=ENDS, end=ENDS, steps=STEPS)
def test_both_ends_are_hit_and_kept(shape: str, start: float, end: float, steps: int) -> None:
    schedule = Schedule(shape, end, steps)
    assert [schedule.value(start, step) for step in (0, 1)] == [start, start]
    assert [schedule.value(start, step) for step in (steps, steps + 1, 10**6)] == [end] * 3


@given(shape=SHAPES, start=ENDS, end=ENDS, steps=STEPS)
def test_courses_are_monotone_and_stay_between(
    shape: str, start: float, end: float, steps: int
) -> None:
    schedule = Schedule(shape, end, steps)
    values = [schedule.value(start, step) for step in range(1, steps + 2)]
    assert values == sorted(values, reverse=end < start)
    assert max(values) == schedule.largest(start)


def test_linear_is_a_line() -> None:
    values = [Schedule("linear", 20, 11).value(0, step) for step in range(1, 12)]
    assert values == pytest.approx(range(0, 22, 2))


def test_cosine_is_half_a_wave() -> None:
    schedule = Schedule("cosine", 0, 9)
    assert schedule.value(20, 5) == pytest.approx(10)
    assert schedule.value(20, 3) == pytest.approx(10 + 10 * math.cos(math.pi / 4))
    # Slow at both ends, fast between.
    drops = [schedule.value(20, step) - schedule.value(20, step + 1) for step in range(1, 9)]
    assert drops == pytest.approx(drops[::-1])
    assert max(drops) == pytest.approx(drops[3])


@given(start=ENDS, step=st.integers(0, 10**6))
def test_constant_never_moves(start: float, step: int) -> None:
    assert Schedule().value(start, step) == Schedule().largest(start) == start
