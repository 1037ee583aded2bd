"""The law: draws, records and rollout seeds."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rsp_rl.draws.laws import LAWS, draw_soft_prompt
from rsp_rl.draws.record import DTYPES, RECORD_SIZE, SoftPromptRecord
from rsp_rl.draws.seeds import prompt_index_of, rollout_seed
from tests.properties import examples
from tests.tolerances import rounding

UINT64 = st.integers(0, 2**64 - 1)
DIGEST = {
    (42, 3, 5, 0.0, 1.0): "35771439a65cc8135aa5a9e989678466",
    (2**64 - 1, 2, 4, 0.01, 0.02): "897bb6551fae179bbe610438be7eb91a",
    (0, 2, 4, -1.5, 0.5): "29831b0a18087442e19603fe8cc0d0d3",
}


def _digest(rows: torch.Tensor) -> str:
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()[:32]


def _record(**changes: object) -> SoftPromptRecord:
    values = {
        "seed": 7,
        "start": 5,
        "length": 4,
        "mean": -1.5e-5,
        "std": 0.0153,
        "dtype": "float32",
        "placeholder_id": 2,
    }
    return SoftPromptRecord(**{**values, **changes})


# The draw.


@pytest.mark.parametrize(("arguments", "digest"), DIGEST.items())
def test_draw_golden_bytes(arguments: tuple, digest: str) -> None:
    assert _digest(draw_soft_prompt(*arguments)) == digest


def test_draw_golden_numbers() -> None:
    first_row = draw_soft_prompt(42, 3, 5, 0.0, 1.0)[0, :4].tolist()
    assert first_row == [
        0.3375714421272278,
        -0.7821534872055054,
        -0.3160251975059509,
        -2.101215362548828,
    ]
    rows = draw_soft_prompt(2**64 - 1, 2, 4, 0.01, 0.02)
    assert rows[0, 0].item() == -0.04537343233823776


_OTHER_PROCESS = """
import hashlib, sys, numpy, torch
torch.set_num_threads(int(sys.argv[1])); torch.manual_seed(int(sys.argv[2]))
numpy.random.seed(int(sys.argv[2])); torch.rand(3); numpy.random.rand(5)
torch.set_default_dtype(torch.float64)
from rsp_rl.draws.laws import draw_soft_prompt
from rsp_rl.draws.seeds import prompt_index_of, rollout_seed
seeds = [rollout_seed(42, step, prompt_index_of("math-17"), n) for step in (1, 2) for n in (0, 7)]
rows = torch.cat([draw_soft_prompt(seed, 20, 64, 0.01, 0.5) for seed in seeds])
assert rows.dtype == torch.float32
print(seeds, hashlib.sha256(rows.numpy().tobytes()).hexdigest())
"""


def test_draw_and_seeds_are_the_same_in_any_process() -> None:
    other_hash_seed = "4711" if os.environ.get("PYTHONHASHSEED") != "4711" else "4712"
    other_threads = "2" if torch.get_num_threads() != 2 else "1"
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS, other_threads, "99"],
        env={**os.environ, "PYTHONHASHSEED": other_hash_seed, "OMP_NUM_THREADS": other_threads},
        capture_output=True,
        text=True,
        check=True,
    )
    seeds = [
        rollout_seed(42, step, prompt_index_of("math-17"), n) for step in (1, 2) for n in (0, 7)
    ]
    rows = torch.cat([draw_soft_prompt(seed, 20, 64, 0.01, 0.5) for seed in seeds])
    assert done.stdout == f"{seeds} {hashlib.sha256(rows.numpy().tobytes()).hexdigest()}\n"


def test_draw_neither_reads_nor_moves_global_random_state() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    first = draw_soft_prompt(1, 4, 8, 0.0, 1.0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    try:
        torch.rand(1)
        np.random.rand(1)
        assert torch.equal(draw_soft_prompt(1, 4, 8, 0.0, 1.0), first)
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)


@given(seed=UINT64, short=st.integers(0, 12), more=st.integers(0, 12), width=st.integers(1, 40))
@examples(60)
def test_rows_of_a_shorter_soft_prompt_begin_a_longer_one(
    seed: int, short: int, more: int, width: int
) -> None:
    longer = draw_soft_prompt(seed, short + more, width, 0.1, 2.0)
    assert torch.equal(draw_soft_prompt(seed, short, width, 0.1, 2.0), longer[:short])


def test_ten_rows_are_the_first_of_twenty_at_a_real_width() -> None:
    twenty = draw_soft_prompt(3, 20, 3584, 0.0, 0.0153)
    assert twenty.shape == (20, 3584)
    assert torch.equal(draw_soft_prompt(3, 10, 3584, 0.0, 0.0153), twenty[:10])


def test_draw_is_normal_with_the_given_mean_and_standard_deviation() -> None:
    mean, std = 0.03, 0.4
    drawn = torch.cat([draw_soft_prompt(seed, 20, 512, mean, std) for seed in range(40)])
    values = drawn.double().flatten().numpy()
    count = values.size
    assert abs(values.mean() - mean) < 4 * std / math.sqrt(count)
    assert abs(values.var() / std**2 - 1) < 4 * math.sqrt(2 / count)
    assert abs(stats.skew(values)) < 4 * math.sqrt(6 / count)
    assert abs(stats.kurtosis(values)) < 4 * math.sqrt(24 / count)
    assert stats.kstest(values, "norm", args=(mean, std)).pvalue > 0.01
    # Each single soft prompt too, not the mixture alone: p-values are then uniform.
    each = [stats.kstest(h.numpy(), "norm", args=(mean, std)).pvalue for h in drawn[::8]]
    assert stats.kstest(each, "uniform").pvalue > 0.01


def test_rows_have_isotropic_covariance() -> None:
    width, rows = 24, 40_000
    drawn = draw_soft_prompt(11, rows, width, 0.5, 3.0).double().numpy()
    covariance = np.cov(drawn, rowvar=False) / 9.0
    # Entries of a sample covariance: standard error 1/sqrt(n) off the diagonal, sqrt(2/n) on it.
    off_diagonal = covariance[~np.eye(width, dtype=bool)]
    assert np.abs(off_diagonal).max() < 4.5 / math.sqrt(rows)
    assert np.abs(np.diag(covariance) - 1).max() < 4.5 * math.sqrt(2 / rows)
    eigenvalues = np.linalg.eigvalsh(covariance)
    edge = math.sqrt(width / rows)  # Marchenko-Pastur
    assert (1 - edge) ** 2 - 0.02 < eigenvalues[0]
    assert eigenvalues[-1] < (1 + edge) ** 2 + 0.02
    # Neighbouring rows are independent.
    lagged = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    assert abs(lagged) < 4 / math.sqrt(drawn.size)


@pytest.mark.parametrize("kind", ["consecutive", "rollouts of a group", "one bit apart"])
def test_draws_of_different_seeds_are_uncorrelated(kind: str) -> None:
    seeds = {
        "consecutive": list(range(100, 164)),
        "rollouts of a group": [rollout_seed(42, 1, 0, n) for n in range(64)],
        "one bit apart": [1 << bit for bit in range(64)],
    }[kind]
    drawn = np.stack(
        [draw_soft_prompt(s, 20, 100, 0.0, 1.0).double().numpy().ravel() for s in seeds]
    )
    correlation = np.corrcoef(drawn)[np.triu_indices(len(seeds), k=1)]
    expected = 1 / math.sqrt(drawn.shape[1])
    assert np.abs(correlation).max() < 5 * expected
    assert abs(correlation.std() / expected - 1) < 0.1


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0, 2.0, 10.0])
def test_scale_multiplies_the_deviation_and_leaves_the_mean(scale: float) -> None:
    base = draw_soft_prompt(5, 4, 64, 0.0, 0.02).double()
    scaled = draw_soft_prompt(5, 4, 64, 0.3, 0.02 * scale).double()
    assert torch.allclose(scaled - 0.3, base * scale, rtol=0, atol=rounding(2, size=2))


def test_zero_length_is_an_empty_soft_prompt() -> None:
    assert draw_soft_prompt(5, 0, 64, 0.0, 1.0).shape == (0, 64)
    assert _record(length=0).draw(8).shape == (0, 8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_record_draws_rounded_to_the_rollout_dtype(dtype: str) -> None:
    record = _record(dtype=dtype, length=20)
    rows = record.draw(256)
    exact = draw_soft_prompt(record.seed, 20, 256, record.mean, record.std)
    assert rows.dtype == getattr(torch, dtype)
    assert torch.equal(rows, exact.to(rows.dtype))
    # Rounded once: through the actor's float32 and back nothing more is lost.
    assert torch.equal(rows.float().to(rows.dtype), rows)
    assert torch.equal(rows.float(), exact) is (dtype == "float32")


@pytest.mark.parametrize(
    "arguments",
    [
        (1, -1, 4, 0.0, 1.0),
        (1, 4, 0, 0.0, 1.0),
        (1, 4, 4, 0.0, -1.0),
        (1, 4, 4, 0.0, math.nan),
        (-1, 4, 4, 0.0, 1.0),
    ],
)
def test_impossible_draws_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match=r"cannot draw|key must"):
        draw_soft_prompt(*arguments)


# The record.


@given(
    seed=UINT64,
    start=st.integers(0, 2**40),
    length=st.integers(0, 2**20),
    mean=st.floats(allow_nan=False, allow_infinity=False),
    std=st.floats(min_value=0.0, allow_nan=False, allow_infinity=False),
    dtype=st.sampled_from(DTYPES),
    placeholder_id=st.integers(0, 2**31),
    law=st.sampled_from(sorted(LAWS)),
    table=UINT64,
)
@examples(150)
def test_record_round_trip(**values: object) -> None:
    record = SoftPromptRecord(**values)
    encoded = record.to_tensor()
    assert encoded.dtype == torch.int64
    assert encoded.shape == (RECORD_SIZE,)
    for decoded in (
        SoftPromptRecord.from_tensor(encoded),
        SoftPromptRecord(**json.loads(json.dumps(record.to_dict()))),
    ):
        assert decoded == record
        for name in ("mean", "std"):  # -0.0 == 0.0, hence hex
            assert getattr(decoded, name).hex() == getattr(record, name).hex()


def test_record_survives_a_batch_and_slicing() -> None:
    records = [_record(seed=2**64 - 1 - n, start=n) for n in range(3)]
    batch = torch.stack([record.to_tensor() for record in records])
    assert [SoftPromptRecord.from_tensor(row) for row in batch] == records
    columns = batch.T.contiguous()  # rows are strided views then
    assert [SoftPromptRecord.from_tensor(columns[:, n]) for n in range(3)] == records


def test_decoded_record_draws_the_same_rows() -> None:
    record = _record(seed=2**63 + 12345, dtype="bfloat16")
    decoded = SoftPromptRecord.from_tensor(record.to_tensor())
    assert torch.equal(decoded.draw(64), record.draw(64))


def _corrupted(position: int, value: int) -> torch.Tensor:
    encoded = _record().to_tensor()
    encoded[position] = value
    return encoded


_NAN_BITS = int(np.array([math.nan]).view(np.int64)[0])
_INF_BITS = int(np.array([math.inf]).view(np.int64)[0])
_MINUS_ONE_BITS = int(np.array([-1.0]).view(np.int64)[0])


@pytest.mark.parametrize(
    ("encoded", "cause"),
    [
        (_record().to_tensor().float(), "float32"),
        (_record().to_tensor().int(), "int32"),
        (_record().to_tensor()[:6], r"\[6\]"),
        (_record().to_tensor()[None], r"\[1, 9\]"),
        (torch.zeros(0, dtype=torch.int64), r"\[0\]"),
        (_corrupted(1, -1), "negative start"),
        (_corrupted(2, -1), "length"),
        (_corrupted(3, _NAN_BITS), "mean nan"),
        (_corrupted(4, _NAN_BITS), "std nan"),
        (_corrupted(4, _INF_BITS), "std inf"),
        (_corrupted(4, _MINUS_ONE_BITS), r"std -1\.0"),
        (_corrupted(5, 3), "dtype code 3"),
        (_corrupted(5, -1), "dtype code -1"),
        (_corrupted(6, -1), "placeholder"),
        (_corrupted(7, len(LAWS)), "law code 4"),
        (_corrupted(7, -1), "law code -1"),
    ],
)
def test_corrupted_records_are_refused(encoded: torch.Tensor, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        SoftPromptRecord.from_tensor(encoded)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"seed": -1}, "unsigned 64-bit"),
        ({"seed": 2**64}, "unsigned 64-bit"),
        ({"dtype": "float64"}, "unknown rollout dtype"),
        ({"dtype": "torch.float32"}, "unknown rollout dtype"),
        ({"law": "uniform"}, "unknown law 'uniform'"),
        ({"table": 2**64}, "table digest"),
    ],
)
def test_impossible_records_are_refused(changes: dict, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        _record(**changes)


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
