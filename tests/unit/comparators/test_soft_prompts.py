"""What stands at the soft prompt positions, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.comparators.ttsv import Prefix
from rsp_rl.inference.engines import start_engines
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.inference.soft_prompts import DrawnSoftPrompts
from rsp_rl.placement.prompt import POSITIONS
from tests.tolerances import FORWARD
from tests.unit.comparators.conftest import request


@pytest.mark.parametrize("position", POSITIONS)
def test_rows_stand_at_the_placeholders_alone(engine: HuggingFaceEngine, position: str) -> None:
    rows = torch.randn(4, engine.host.hidden_size)
    engine.soft_prompts = Prefix(rows)
    asked = [request(engine, text, position=position) for text in ("Compute 1+2.", "3-1+4-2?")]
    embeds, mask = engine._embed(asked)
    table = engine.host.network.get_input_embeddings().weight
    for one, embedded, real in zip(asked, embeds, mask.bool(), strict=True):
        expected = table[torch.tensor(one.token_ids)].clone()
        expected[one.record.start : one.record.start + 4] = rows
        assert torch.equal(embedded[real], expected)


def test_rsp_is_one_of_them(engine: HuggingFaceEngine) -> None:
    asked = request(engine, seed=11)
    assert isinstance(engine.soft_prompts, DrawnSoftPrompts)
    drawn = asked.record.draw(engine.host.hidden_size)
    assert torch.equal(engine.soft_prompts.rows(asked), drawn)
    by_rsp = engine.generate_tokens([asked])
    engine.soft_prompts = Prefix(drawn)
    assert engine.generate_tokens([asked]) == by_rsp
    engine.soft_prompts = Prefix(-drawn)
    assert engine.generate_tokens([asked]) != by_rsp


def test_logits_are_those_of_a_plain_forward(engine: HuggingFaceEngine) -> None:
    """With the table's own rows in place, nothing has changed; a gradient goes into the rows."""
    ids = torch.arange(20, 40)
    table = engine.host.network.get_input_embeddings().weight
    rows = table[ids[5:9]].clone().requires_grad_()
    logits = engine.host.logits(ids.tolist(), 5, rows, 6)
    plain = engine.host.network(ids[None]).logits[0, -6:]
    torch.testing.assert_close(logits, plain, rtol=0, atol=FORWARD)
    logits.sum().backward()
    assert rows.grad.abs().min() > 0


def test_repetition_penalty(engine: HuggingFaceEngine) -> None:
    """One so large that no token can come twice, where without it one does."""
    asked = [request(engine, f"Compute {n}+1.", length=0, max_tokens=6) for n in range(1, 9)]
    repeats = [one for one in asked if len(set(t := engine.generate_tokens([one])[0])) < len(t)]
    assert repeats
    repeats[0].sampling["repetition_penalty"] = 1e6
    (tokens,) = engine.generate_tokens(repeats[:1])
    assert len(set(tokens)) == len(tokens)


def test_vllm_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"comparator.method=ltpo needs --engine huggingface"):
        start_engines(model, EngineOptions(kind="vllm"), soft_prompts=True, comparator=Ltpo())
