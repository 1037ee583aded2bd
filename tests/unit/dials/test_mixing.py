"""Which rollouts get a soft prompt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.dials.mixing import in_half, is_chosen
from rsp_rl.draws.seeds import rollout_seed


@given(pairs=st.integers(1, 64))
def test_halves_are_exact(pairs: int) -> None:
    assert sum(in_half(number) for number in range(2 * pairs)) == pairs


@pytest.mark.parametrize("probability", [0.05, 0.3, 0.5, 0.9])
def test_shares_are_within_binomial_bounds(probability: float) -> None:
    size = 40_000
    seeds = [rollout_seed(42, 1 + n // 4096, n // 8 % 512, n % 8) for n in range(size)]
    assert len(set(seeds)) == size
    chosen = sum(is_chosen(seed, probability) for seed in seeds)
    deviation = math.sqrt(size * probability * (1 - probability))
    assert abs(chosen - size * probability) < 4 * deviation


@given(seed=st.integers(0, 2**64 - 1), small=st.floats(0, 1), large=st.floats(0, 1))
def test_a_larger_probability_keeps_the_chosen(seed: int, small: float, large: float) -> None:
    small, large = sorted((small, large))
    assert is_chosen(seed, small) <= is_chosen(seed, large)
    assert is_chosen(seed, 1.0)
    assert not is_chosen(seed, 0.0)
