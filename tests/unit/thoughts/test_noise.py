"""Noise: equal to the naive one to the bit, of the right distributions, and of nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rsp_rl.thoughts.noise import Noise
from tests.properties import examples
from tests.unit.thoughts.naive import NaiveNoise

COUNT = 20_000
KEYS = st.integers(0, 2**64 - 1)
POSITIONS = st.integers(0, 2**31)


def signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def at(*keys: tuple[int, int]) -> Noise:
    return Noise(
        torch.tensor([signed(seed) for seed, _ in keys]),
        torch.tensor([position for _, position in keys]),
    )


@examples(50)
@given(KEYS, POSITIONS, st.integers(0, 200), st.integers(0, 300_000))
def test_bits_are_the_naive_ones(seed: int, position: int, slot: int, index: int) -> None:
    naive = NaiveNoise(seed, position)
    noise, index_K = at((seed, position)), torch.tensor([index])
    assert int(noise.bits(slot, index_K)) == signed(naive.bits(slot, index))
    assert float(noise.uniform(slot, index_K)) == naive.uniform(slot, index)
    for name in ("gumbel", "normal"):
        expected = getattr(naive, name)(slot, index)
        assert float(getattr(noise, name)(slot, index_K)) == pytest.approx(expected, rel=1e-5)
    for shape in (1e-3, 0.7, 40.0):
        drawn = float(noise.log_gamma(slot, index_K, torch.full((1, 1), shape)))
        # The noise within is rounded to float32; the shape too.
        assert drawn == pytest.approx(naive.log_gamma(slot, index, shape), rel=1e-4, abs=1e-4)


@examples(20)
@given(st.lists(st.tuples(KEYS, POSITIONS), min_size=1, max_size=8))
def test_equal_in_any_batch(keys: list[tuple[int, int]]) -> None:
    index_K = torch.tensor([0, 3, 49_151])
    together = at(*keys)
    shape_NK = torch.full((len(keys), 3), 0.3)
    for name, more in (("bits", ()), ("gumbel", ()), ("normal", ()), ("log_gamma", (shape_NK,))):
        batch = getattr(together, name)(2, index_K, *more)
        for row, key in enumerate(keys):
            alone = getattr(at(key), name)(2, index_K, *(part[:1] for part in more))
            assert torch.equal(batch[row : row + 1], alone)
        assert torch.equal(
            getattr(together.at(torch.tensor([0])), name)(2, index_K, *(part[:1] for part in more)),
            batch[:1],
        )


@pytest.mark.parametrize(
    ("name", "law"), [("uniform", "uniform"), ("gumbel", "gumbel_r"), ("normal", "norm")]
)
def test_distributions(name: str, law: str) -> None:
    """Over tokens, over positions, over seeds, and over slots."""
    ids = torch.arange(COUNT)
    few = torch.tensor([7])
    along = {
        "tokens": getattr(at((5, 9)), name)(0, ids),
        "positions": getattr(Noise(torch.full((COUNT,), 5), ids), name)(0, few),
        "seeds": getattr(Noise(ids, torch.full((COUNT,), 5)), name)(0, few),
        "slots": torch.stack([getattr(at((5, 9)), name)(s, few) for s in range(2000)]),
    }
    for values in along.values():
        assert stats.kstest(values.flatten().double().numpy(), law).pvalue > 0.001


@pytest.mark.parametrize("shape", [1e-3, 0.05, 0.5, 1.0, 3.7, 100.0, 1e6])
def test_gamma_of_every_shape(shape: float) -> None:
    ids = torch.arange(COUNT)
    drawn = at((11, 3)).log_gamma(0, ids, torch.full((1, COUNT), shape))[0].double()
    assert bool(drawn.isfinite().all())
    p = stats.gamma(shape).cdf(drawn.exp().numpy())
    if shape < 0.01:  # most are below the smallest float: log G is nearly log U / shape
        p = torch.exp(shape * drawn - shape * math.lgamma(1 + shape) / shape).numpy()
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_keys_have_nothing_in_common() -> None:
    """Neighbours in seed, position, slot and token; and the two normals of equal bits elsewhere."""
    ids = torch.arange(COUNT)
    base = at((5, 9)).normal(0, ids)[0]
    others = [
        at((6, 9)).normal(0, ids)[0],
        at((5, 10)).normal(0, ids)[0],
        at((5, 9)).normal(1, ids)[0],
        at((5, 9)).normal(0, ids + 1)[0],
        at((9, 5)).normal(0, ids)[0],
        at((5, 9)).gumbel(1, ids)[0],
    ]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 6 / math.sqrt(COUNT)


def test_a_shape_that_is_no_number_ends() -> None:
    with pytest.raises(RuntimeError, match="no gamma draw"):
        at((1, 1)).log_gamma(0, torch.tensor([1]), torch.tensor([[math.nan]]))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_positions_of_any_width_have_the_same_noise(count: int) -> None:
    """An engine's are int32: two of them are as wide as one of int64."""
    noise = Noise.of(range(count), range(5, 5 + count))
    narrow = Noise(noise.seeds_N, noise.positions_N.int())
    of_array = Noise.of(range(count), np.arange(5, 5 + count, dtype=np.int32))
    for other in (narrow, of_array):
        assert torch.equal(other.bits(0, torch.arange(7)), noise.bits(0, torch.arange(7)))
