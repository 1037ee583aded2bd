"""Which tokens of a chain thoughts stand for, by hand, and what must hold of any chain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.latent.ccot.positions import evenly_spaced
from rsp_rl.latent.ccot.settings import times


@pytest.mark.parametrize(
    ("length", "ratio", "positions"),
    [
        (10, 0.3, [3, 6, 9]),  # pieces of 4, 3 and 3 tokens
        (10, 0.5, [1, 3, 5, 7, 9]),
        (10, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (10, 0, []),
        (24, 0.1, [7, 15, 23]),  # 2.4 thoughts are 3
        (24, 0.05, [11, 23]),
        (7, 0.05, [6]),  # the chain's end alone
        (1, 0.05, [0]),
        (5, 0.75, [1, 2, 3, 4]),  # a piece of 2 tokens, three of 1
    ],
)
def test_by_hand(length: int, ratio: float, positions: list[int]) -> None:
    assert evenly_spaced(length, ratio) == positions


@pytest.mark.parametrize(
    ("ratio", "tokens", "count"),
    [(0.07, 100, 7), (0.1, 30, 3), (0.05, 200, 10), (0.29, 100, 29), (1e-3, 1000, 1), (1.0, 3, 3)],
)
def test_a_ratio_is_what_is_written(ratio: float, tokens: int, count: int) -> None:
    """0.07 x 100 of floats is 7.000000000000001, whose ceiling is 8."""
    assert times(ratio, tokens) == count


@given(length=st.integers(1, 400), per_cent=st.integers(1, 100))
def test_of_any_chain(length: int, per_cent: int) -> None:
    positions = evenly_spaced(length, per_cent / 100)
    assert len(positions) == -(-length * per_cent // 100)
    gaps = [after - before for before, after in zip([-1, *positions], positions, strict=False)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1
    assert positions[-1] == length - 1
