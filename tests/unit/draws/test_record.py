"""The record: its encoding, what it refuses, the rows that it draws."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.draws.laws import LAWS, draw_soft_prompt
from rsp_rl.draws.record import DTYPES, RECORD_SIZE, SoftPromptRecord, tokens_digest
from tests.properties import examples

UINT64 = st.integers(0, 2**64 - 1)


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


# Its rows.


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


# Its encoding.


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
    added_to=st.integers(1, 2**64 - 1),
)
@examples(150)
def test_record_round_trip(law: str, added_to: int, **values: object) -> None:
    record = SoftPromptRecord(law=law, added_to=added_to if LAWS[law].added else 0, **values)
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


@given(seed=UINT64, table=UINT64, law=st.sampled_from(["gaussian", "vocab", "fixed", "sphere"]))
@examples(40)
def test_records_of_0_1_had_a_number_less(seed: int, table: int, law: str) -> None:
    record = _record(seed=seed, table=table, law=law)
    assert SoftPromptRecord.from_tensor(record.to_tensor()[:9]) == record
    fields = {name: value for name, value in record.to_dict().items() if name != "added_to"}
    assert SoftPromptRecord(**fields) == record


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
        (_record().to_tensor()[None], r"\[1, 10\]"),
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
        (_corrupted(7, len(LAWS)), "law code 5"),
        (_corrupted(7, 4), "rows of the law question_noise are added to embeddings"),
        (_corrupted(9, 4), "rows of the law gaussian stand in the place of embeddings"),
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
        ({"added_to": 2**64, "law": "question_noise"}, "tokens' digest"),
        ({"law": "question_noise"}, "are added to embeddings, and the record says added_to=0"),
        ({"added_to": 7}, "stand in the place of embeddings, and the record says added_to=7"),
    ],
)
def test_impossible_records_are_refused(changes: dict, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        _record(**changes)


# The tokens that it is of.


@given(
    tokens=st.lists(st.integers(0, 2**31), min_size=1, max_size=8),
    others=st.lists(st.integers(0, 2**31), max_size=8),
)
@examples(60)
def test_a_record_of_rows_that_are_added_knows_its_tokens(
    tokens: list[int], others: list[int]
) -> None:
    added_to = tokens_digest(tokens)
    record = _record(law="question_noise", length=len(tokens), added_to=added_to)
    assert record.stands_at(tokens)
    assert record.stands_at(others) == (others == tokens)
    assert not record.stands_at(tokens[:-1])


def test_a_record_of_rows_in_place_of_tokens_stands_at_placeholders() -> None:
    record = _record(length=3, placeholder_id=2)
    assert record.stands_at([2, 2, 2])
    for others in ([2, 2], [2, 2, 3], [2, 2, 2, 2], []):
        assert not record.stands_at(others)


@pytest.mark.parametrize("law", ["gaussian", "question_noise"])
def test_a_record_of_no_rows_stands_at_nothing(law: str) -> None:
    """As verl's padding samples have it, whose tokens are others."""
    record = _record(law=law, length=0, added_to=9 if law == "question_noise" else 0)
    assert record.stands_at([])
