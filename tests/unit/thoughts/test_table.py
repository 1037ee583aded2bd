"""What a worker keeps: right rows at right positions, and memory that comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsp_rl.basics.errors import GenerationError
from rsp_rl.thoughts.host import tokens_and_kinds
from rsp_rl.thoughts.law import InputLaw
from rsp_rl.thoughts.laws.hidden import Hidden
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.phases import Phase, Phases
from rsp_rl.thoughts.rows import Kind, Rows
from rsp_rl.thoughts.stepping import Made, Thinker
from rsp_rl.thoughts.table import Entry, ThoughtTable

LAW = Multiplex(k=3)


def entry(key: int, start: int = 10, law: InputLaw = LAW) -> Entry:
    return Entry(key, Thinker(law, Phase(Phases(max_thoughts=9), ()), seed=key), start)


def mixes(*first: int) -> Rows:
    """Rows of three tokens each, of which the first are these."""
    ids = torch.tensor([[token, token + 1, token + 2] for token in first])
    return Rows.of_kind(Kind.MIX, ids, ids / 100)


def made(rows: Rows) -> Made:
    return Made(list(range(len(rows))), rows, *tokens_and_kinds(rows))


def test_a_record_has_a_row_for_every_token() -> None:
    table = ThoughtTable("cpu")
    one, two = entry(1), entry(2, start=20)
    table.begin("a", one)
    table.begin("b", two)
    table.add([one, two], made(mixes(3, 4)))
    table.add([two], made(mixes(5)))
    one.sampled(7)
    table.add([one], made(Rows.tokens(Kind.FORCED, [8], like=mixes(0))))
    record = table.take(1)
    assert record is not None
    record.check([3, 7, 8])
    assert (record.law, record.seed, record.start) == (LAW, 1, 10)
    assert record.rows.kind_N.tolist() == [Kind.MIX, Kind.TOKEN, Kind.FORCED]
    assert record.rows.ids_NK.tolist() == [[3, 4, 5], [7, 7, 7], [8, 8, 8]]
    assert record.rows.values_NK[0].tolist() == pytest.approx([0.03, 0.04, 0.05])
    assert record.rows.values_NK[1:].tolist() == [[1, 0, 0], [1, 0, 0]]
    other = table.take(2)
    assert other is not None
    other.check([4, 5])


def test_only_inputs_that_are_not_the_tokens_own_have_places() -> None:
    table = ThoughtTable("cpu")
    one = entry(1, start=10)
    table.begin("a", one)
    table.add([one], made(mixes(3)))
    table.add([one], made(Rows.tokens(Kind.TOKEN, [4], like=mixes(0))))
    one.sampled(5)
    table.add([one], made(mixes(6)))
    assert [position for position, _ in one.places(0, 99)] == [10, 13]
    assert [position for position, _ in one.places(11, 13)] == []
    assert one.places(0, 10) == []
    ((_, place),) = one.places(13, 14)
    assert table.read(one, [place]).ids_NK.tolist() == [[6, 7, 8]]
    assert one.position == 14


@pytest.mark.parametrize("first", ["take", "finish"])
def test_memory_comes_back_in_either_order(first: str) -> None:
    table = ThoughtTable("cpu")
    for number in range(200):
        one = entry(number)
        table.begin("again", one)
        for _ in range(100):
            table.add([one], made(mixes(number)))
        if first == "finish":
            table.finish("again")
        record = table.take(number)
        assert record is not None
        record.check([number] * 100)
        if first == "take":
            table.finish("again")
    assert (len(table), table.requests, table.free_share) == (0, {}, 1.0)
    assert table.bytes < 100_000
    assert table.take(3) is None


def test_records_that_nobody_claims_are_bounded() -> None:
    table = ThoughtTable("cpu", most_unclaimed=4)
    for number in range(10):
        one = entry(number)
        table.begin(str(number), one)
        table.add([one], made(mixes(number)))
        table.finish(str(number))
    assert len(table) == 4
    assert table.take(5) is None
    assert table.take(6) is not None


def test_memory_is_bounded_by_one_error() -> None:
    table = ThoughtTable("cpu", most_bytes=40_000)
    one = entry(1)
    table.begin("a", one)

    def think() -> None:
        for _ in range(10_000):
            table.add([one], made(mixes(3)))

    with pytest.raises(GenerationError, match=r"thoughts of 1 requests .* lower --max-num-seqs"):
        think()
    assert 36_000 < table.bytes <= 40_000  # of 25 a row: to the last page
    assert len(one.ids) == table.bytes // 25


def test_dense_rows_and_an_output_without_thoughts() -> None:
    table = ThoughtTable("cpu")
    law = Hidden(latent_id=2)
    one, none = entry(1, law=law), entry(2, law=law)
    table.begin("a", one)
    table.begin("b", none)
    dense = torch.arange(4.0).to(torch.bfloat16)[None]
    table.add([one], made(Rows.of_kind(Kind.HIDDEN, torch.tensor([[2]]), torch.ones(1, 1), dense)))
    one.sampled(5)
    none.sampled(6)
    record = table.take(1)
    assert record is not None
    assert record.rows.dense_ND is not None
    assert torch.equal(record.rows.dense_ND, torch.cat([dense, torch.zeros_like(dense)]))
    plain = table.take(2)
    assert plain is not None
    plain.check([6])
    assert plain.rows.dense_ND is None


def test_two_outputs_of_one_request_are_refused() -> None:
    table = ThoughtTable("cpu")
    table.begin("a", entry(1))
    with pytest.raises(ValueError, match="n must be 1"):
        table.begin("b", entry(1))


def test_an_output_goes_on_from_its_record() -> None:
    """Thoughts, forced tokens and a sampler's: the same places, and one record of all."""
    table = ThoughtTable("cpu")
    first = entry(1)
    table.begin("a", first)
    table.add([first], made(mixes(3)))
    first.sampled(7)
    table.add([first], made(Rows.tokens(Kind.FORCED, [8], like=mixes(0))))
    so_far = table.take(1)
    assert so_far is not None

    again = entry(2)
    table.begin("b", again)
    table.add_before(again, so_far.rows)
    assert (again.ids, again.position) == ([3, 7, 8], 13)
    assert [position for position, _ in again.places(0, 99)] == [10]
    table.add([again], made(mixes(5)))
    record = table.take(2)
    assert record is not None
    record.check([3, 7, 8, 5])
    assert record.cut(3).to_bytes() == replace(so_far, seed=2).to_bytes()
    table.begin("c", entry(3))
    table.add_before(table.requests["c"], so_far.rows[:0])  # of nothing there is nothing
    assert table.requests["c"].position == 10


def test_a_samplers_tokens_alone_leave_others_rows_alone() -> None:
    """A record without a thought has no dense rows: its tokens are of no pool."""
    law = Hidden(latent_id=7)
    table, other, again = ThoughtTable("cpu"), entry(1, law=law), entry(2, law=law)

    def dense(number: float) -> Rows:
        ids = torch.tensor([[3]])
        return Rows.of_kind(Kind.HIDDEN, ids, ids / 1, torch.full((1, 4), number))

    table.begin("a", other)
    for number in (1.0, 1.5):
        table.add([other], made(dense(number)))
    table.begin("b", again)
    nothing = torch.empty(0, law.slots)
    tokens = Rows.tokens(Kind.TOKEN, [5, 6], like=Rows.of_kind(Kind.TOKEN, nothing, nothing))
    table.add_before(again, tokens)
    for number in (2.0, 2.5):
        table.add([again], made(dense(number)))
    first, second = table.take(1), table.take(2)
    assert first is not None
    assert second is not None
    assert first.rows.dense_ND[:, 0].tolist() == [1.0, 1.5]
    assert second.rows.dense_ND[:, 0].tolist() == [0.0, 0.0, 2.0, 2.5]
    second.check([5, 6, 3, 3])
