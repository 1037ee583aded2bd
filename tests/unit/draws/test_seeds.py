"""Rollout seeds, and a dataset's index as the integer that they take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.draws.seeds import prompt_index_of, rollout_seed
from tests.properties import examples

# Rollout seeds.


@pytest.mark.parametrize(
    ("place", "seed"),
    [
        ((42, 1, 0, 0), 5391107539397647840),
        ((42, 1, 0, 1), 15282024247414354251),
        ((42, 2, 0, 0), 15715261851035846234),
        ((42, 1, 7, 0), 5104676742392404591),
        ((43, 1, 0, 0), 16381225931631678229),
        ((-1, 0, 0, 0), 14811357095169930922),
    ],
)
def test_rollout_seed_golden(place: tuple, seed: int) -> None:
    assert rollout_seed(*place) == seed


def test_validation_seed_golden() -> None:
    assert rollout_seed(42, 0, 0, 0, validation=True) == 10507098851781014402
    last = (42, 2**19 - 1, 2**28 - 1, 2**16 - 1)
    assert rollout_seed(*last, validation=True) == 12466504154276424776


def test_a_million_rollouts_have_a_million_seeds() -> None:
    """A run of 100 steps from step 1, one from the highest step on, indices from both ends."""
    steps = [*range(1, 26), *range(2**19 - 25, 2**19)]
    indices = [*range(1250), *range(2**28 - 1250, 2**28)]
    seeds = np.fromiter(
        (rollout_seed(42, s, i, n) for s in steps for i in indices for n in range(8)),
        dtype=np.uint64,
        count=10**6,
    )
    assert np.unique(seeds).size == 10**6
    # No structure left either: every bit is set half of the time.
    for bit in range(64):
        share = float(((seeds >> np.uint64(bit)) & np.uint64(1)).mean())
        assert abs(share - 0.5) < 4.5 * 0.5 / 1000


@given(
    place=st.tuples(
        st.integers(0, 2**19 - 1), st.integers(0, 2**28 - 1), st.integers(0, 2**16 - 1)
    ),
    other=st.tuples(
        st.integers(0, 2**19 - 1), st.integers(0, 2**28 - 1), st.integers(0, 2**16 - 1)
    ),
    run_seed=st.integers(),
)
@examples(200)
def test_seeds_are_equal_only_for_equal_places(place: tuple, other: tuple, run_seed: int) -> None:
    seed = rollout_seed(run_seed, *place)
    assert 0 <= seed < 2**64
    assert (seed == rollout_seed(run_seed, *other)) is (place == other)
    assert seed != rollout_seed(run_seed, *other, validation=True)


def test_run_seeds_give_different_draws() -> None:
    places = [(step, index, n) for step in (0, 1, 500) for index in (0, 9) for n in (0, 1)]
    run_seeds = [0, 1, -1, 42, 2**64, 10**30]
    seeds = {rollout_seed(run, *place) for run in run_seeds for place in places}
    assert len(seeds) == len(places) * len(run_seeds)


def test_numpy_integers_count_as_integers() -> None:
    place = (np.int64(2**19 - 1), np.int32(2**28 - 1), np.uint16(2**16 - 1))
    for validation in (False, True):
        plain = rollout_seed(42, *map(int, place), validation=validation)
        seed = rollout_seed(42, *place, validation=np.bool_(validation))
        assert seed == plain
        assert type(seed) is int


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ((-1, 0, 0), "step=-1"),
        ((2**19, 0, 0), "step="),
        ((0, -1, 0), "prompt_index=-1"),
        ((0, 2**28, 0), "prompt_index="),
        ((0, 0, -1), "rollout=-1"),
        ((0, 0, 2**16), "rollout="),
    ],
)
def test_coordinates_beyond_their_bits_are_refused(place: tuple, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        rollout_seed(42, *place)


# A dataset's index as an integer.


@pytest.mark.parametrize("index", [0, 1, 8499, 2**28 - 1, np.int64(17), np.uint8(3), np.int32(0)])
def test_small_integers_stand_for_themselves(index: object) -> None:
    result = prompt_index_of(index)
    assert result == int(index)
    assert type(result) is int


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("math-17", 43660001),
        ("", 127968996),
        ("9a8b7c6d-0000-4000-8000-000000000000", 86771110),
        ("7", 169300199),
        (-1, 171464479),
        (np.int64(-1), 171464479),
        (2**28, 236502948),
        (2**70, 30576239),
        (True, 52489261),
        (False, 207696522),
        (np.True_, 52489261),
        (None, 97873747),
    ],
)
def test_other_indices_are_hashed_stably(index: object, expected: int) -> None:
    assert prompt_index_of(index) == expected


@given(st.one_of(st.integers(), st.text(), st.floats(), st.none(), st.booleans(), st.binary()))
@examples(100)
def test_any_index_fits_a_rollout_seed(index: object) -> None:
    assert 0 <= rollout_seed(42, 1, prompt_index_of(index), 0) < 2**64


def test_string_indices_rarely_meet() -> None:
    indices = {prompt_index_of(f"{n:08x}-aaaa") for n in range(20_000)}
    # The birthday bound for 28 bits: 0.75 collisions expected.
    assert len(indices) >= 20_000 - 6
