"""Records: round trips, and what is no record of an output."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.thoughts.laws.gumbel import Gumbel
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.laws.noisy import Soft
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from tests.properties import examples


@st.composite
def records(draw: st.DrawFn) -> ThoughtRecord:
    length, seed = draw(st.integers(0, 6)), draw(st.integers(0, 2**32))
    law = draw(
        st.sampled_from([Gumbel(k=3, tau=0.25, clamp=True), Multiplex(k=2), Soft(rms=0.125)])
    )
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(length, law.slots, generator=generator)
    values[values > 1] = -torch.inf  # as of candidates that were dropped
    rows = Rows(
        torch.randint(0, len(Kind), (length,), generator=generator, dtype=torch.uint8),
        torch.randint(0, 2**31 - 1, (length, law.slots), generator=generator, dtype=torch.int32),
        values,
        torch.randn(length, 5, generator=generator).to(dtype) if law.dense else None,
    )
    return ThoughtRecord(law, draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 9)), rows)


def equal(a: Rows, b: Rows) -> bool:
    dense = (a.dense_ND is None and b.dense_ND is None) or torch.equal(a.dense_ND, b.dense_ND)
    parts = ("kind_N", "ids_NK", "values_NK")
    same = all(torch.equal(getattr(a, part), getattr(b, part)) for part in parts)
    return same and dense and (a.dense_ND is None or a.dense_ND.dtype == b.dense_ND.dtype)


@examples(100)
@given(records())
def test_round_trip(record: ThoughtRecord) -> None:
    back = ThoughtRecord.from_bytes(record.to_bytes())
    assert (back.law, back.seed, back.start) == (record.law, record.seed, record.start)
    assert equal(back.rows, record.rows)
    back.check(record.rows.emitted_N.tolist())


@examples(100)
@given(records(), st.data())
def test_cut_or_long_bytes_are_refused(record: ThoughtRecord, data: st.DataObject) -> None:
    encoded = record.to_bytes()
    with pytest.raises(ValueError, match="1 bytes follow"):
        ThoughtRecord.from_bytes(encoded + b"x")
    # The header's own errors, or those of what follows it.
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Invalid|is cut|Extra"):
        ThoughtRecord.from_bytes(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@examples(100)
@given(records(), st.data())
def test_of_other_tokens(record: ThoughtRecord, data: st.DataObject) -> None:
    tokens = record.rows.emitted_N.tolist()
    with pytest.raises(ValueError, match=f"at position {len(tokens)}"):
        record.check([*tokens, 1])
    if tokens:
        at = data.draw(st.integers(0, len(tokens) - 1))
        tokens[at] += 1
        with pytest.raises(ValueError, match=f"at position {at}"):
            record.check(tokens)
        record.cut(at).check(tokens[:at])


def test_as_readers_see_it() -> None:
    """Kinds by name; weights of a mixture alone, those of a token that was drawn twice summed."""
    law = Multiplex(k=3)
    thought = Rows.of_kind(Kind.MIX, torch.tensor([[4, 9, 4]]), torch.full((1, 3), 1 / 3))
    rows = concatenate(
        [
            thought,
            Rows.tokens(Kind.FORCED, [7], like=thought),
            Rows.tokens(Kind.TOKEN, [8], thought),
        ]
    )
    assert ThoughtRecord(law, 0, 5, rows).summary() == [
        {"kind": "mix", "ids": [4, 9], "weights": [0.6667, 0.3333]},
        {"kind": "forced", "ids": [7]},
        {"kind": "token", "ids": [8]},
    ]


def test_of_another_law() -> None:
    rows = Rows.of_kind(Kind.MIX, torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="leaves 4 ids a position"):
        ThoughtRecord(Multiplex(k=4), 0, 0, rows)
    with pytest.raises(ValueError, match=r"rows of \[2, 3\] slots"):
        concatenate([rows, Rows.of_kind(Kind.MIX, torch.zeros(2, 2), torch.ones(2, 2))])
