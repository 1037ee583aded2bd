"""Draws made in the background are the draws that the record gives, whoever makes them when."""

from __future__ import annotations

import threading

import pytest
import torch

from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.injection.draw_ahead import DrawAhead
from rsp_rl.injection.hook import draw_rows

HIDDEN = 24


def record(seed: int, length: int = 3) -> SoftPromptRecord:
    return SoftPromptRecord(
        seed=seed, start=0, length=length, mean=0.1, std=0.5, dtype="bfloat16", placeholder_id=1
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2, 2, 1]])
def test_any_order_and_any_repetition_gives_the_records_draws(order: list[int]) -> None:
    records = [record(0), record(1, 5), record(2, 0), record(3, 1)]
    wanted = [records[n] for n in order]
    with DrawAhead(records, HIDDEN) as ahead:
        rows = draw_rows(wanted, HIDDEN, ahead.draw)
    assert torch.equal(rows, draw_rows(wanted, HIDDEN))
    assert len(rows) == sum(r.length for r in wanted)


def test_a_record_that_was_not_announced_is_drawn_all_the_same() -> None:
    with DrawAhead([record(0)], HIDDEN) as ahead:
        assert torch.equal(ahead.draw(record(9), HIDDEN), record(9).draw(HIDDEN))
        assert torch.equal(ahead.draw(record(0), 2 * HIDDEN), record(0).draw(2 * HIDDEN))


def test_nobody_waits_for_the_draws_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread hangs in the first draw; the last record's is made at once by who asks for it."""
    begun, go_on, draw = threading.Event(), threading.Event(), SoftPromptRecord.draw

    def slow(self: SoftPromptRecord, hidden_size: int) -> torch.Tensor:
        if self.seed == 0:
            begun.set()
            assert go_on.wait(60)
        return draw(self, hidden_size)

    monkeypatch.setattr(SoftPromptRecord, "draw", slow)
    with DrawAhead([record(n) for n in range(4)], HIDDEN) as ahead:
        assert begun.wait(60)
        assert torch.equal(ahead.draw(record(3), HIDDEN), draw(record(3), HIDDEN))
        go_on.set()
        assert torch.equal(ahead.draw(record(0), HIDDEN), draw(record(0), HIDDEN))


def test_ends_with_its_context_and_draws_no_further() -> None:
    with pytest.raises(KeyError), DrawAhead([record(n) for n in range(2000)], 4096):
        raise KeyError
    assert not [t for t in threading.enumerate() if t.name.startswith("rsp-draw")]
