"""Records on their way from a worker: to the right output, and cut to what is of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rsp_rl.basics.errors import GenerationError
from rsp_rl.inference.vllm_engine import Engine, _completion
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows
from rsp_rl.thoughts.settings import Thinking

LAW = Multiplex(k=2)


def record(*tokens: int) -> ThoughtRecord:
    ids = torch.tensor([[token, token] for token in tokens])
    return ThoughtRecord(LAW, 1, 5, Rows.of_kind(Kind.MIX, ids, torch.full(ids.shape, 0.5)))


def output(number: int, *tokens: int) -> Any:
    sample = SimpleNamespace(token_ids=tokens, text="a", finish_reason="stop")
    return SimpleNamespace(request_id=str(number), outputs=[sample], finished=True)


def engine(records: dict[int, ThoughtRecord], **phases: Any) -> Engine:
    """One whose worker has these, by the number of the request."""
    made = object.__new__(Engine)
    thinking = Thinking(LAW, Phases(max_thoughts=4, **phases), seed=1)
    made._sent = {str(number): (100 + number, thinking) for number in range(3)}

    def answer(method: str, args: tuple[list[int]]) -> list[list[bytes | None]]:
        assert method == "take_thoughts"
        found = [records.get(key - 100) for key in args[0]]
        return [[one and one.to_bytes() for one in found], []]

    made._engine = SimpleNamespace(collective_rpc=answer)
    return made


def test_each_output_gets_its_own() -> None:
    ours = engine({0: record(1, 2), 2: record(3)})
    found = ours._take_thoughts([output(2, 3), output(7, 9, 9), output(0, 1, 2)])
    assert {name: len(one) for name, one in found.items()} == {"2": 1, "0": 2}
    assert ours._sent.keys() == {"1"}
    assert ours._take_thoughts([output(7, 9)]) == {}
    assert _completion(output(7, 9, 9), None).tokens == 2


def test_what_came_behind_a_stop_text_is_cut_off() -> None:
    found = engine({0: record(1, 2, 3, 4)})._take_thoughts([output(0, 1, 2)])
    assert len(found["0"]) == 2


def test_the_token_that_ended_an_output_for_its_law_is_no_part_of_it() -> None:
    aborting = {"cold_entropy": 1.0, "cold_abort": True}
    found = engine({0: record(1, 2)}, **aborting)._take_thoughts([output(0, 1, 2, 9)])
    assert _completion(output(0, 1, 2, 9), found["0"]).tokens == 2
    with pytest.raises(ValueError, match="differ at position 2"):
        engine({0: record(1, 2)})._take_thoughts([output(0, 1, 2, 9)])


def test_a_lost_record_and_anothers_are_errors() -> None:
    with pytest.raises(GenerationError, match="no record of the thoughts of request 1"):
        engine({0: record(1)})._take_thoughts([output(0, 1), output(1, 2)])
    with pytest.raises(ValueError, match="differ at position 1"):
        engine({0: record(1, 2)})._take_thoughts([output(0, 1, 3)])
