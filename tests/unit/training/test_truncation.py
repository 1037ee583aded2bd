"""The mass that truncated sampling keeps, against vLLM's own truncation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch

from rsp_rl.training.truncation import Truncation, log_mass
from tests.properties import examples
from tests.tolerances import rounding


def _logits(tokens: int, vocab_size: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, vocab_size, generator=generator) * spread


def _rounding(logits: torch.Tensor) -> float:
    """Two log-sum-exps and a difference, on both sides: numbers of the logits' size or 1."""
    return rounding(6, max(1.0, float(logits[logits.isfinite()].abs().max())))


def _kept_by_vllm(logits: torch.Tensor, truncation: Truncation) -> torch.Tensor:
    """Log of the probability of the tokens that vLLM can sample."""
    tokens, vocab_size = logits.shape
    k = torch.full((tokens,), truncation.top_k if truncation.top_k > 0 else vocab_size)
    p = torch.full((tokens,), truncation.top_p)
    kept = apply_top_k_top_p_pytorch(logits.clone(), k, p)
    return logits.log_softmax(-1).masked_fill(kept.isinf(), -math.inf).logsumexp(-1)


def _sums_that_top_p_cuts(logits: torch.Tensor, truncation: Truncation) -> torch.Tensor:
    k = truncation.top_k if 0 < truncation.top_k < logits.shape[-1] else logits.shape[-1]
    return logits.double().topk(k).values.softmax(-1).cumsum(-1)


@given(
    seed=st.integers(0, 1000),
    top_k=st.sampled_from([-1, 1, 2, 5, 50]),
    top_p=st.sampled_from([0.05, 0.5, 0.95, 1.0]),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
)
@example(seed=249, top_k=-1, top_p=1.0, temperature=0.5)  # 2.03e-6 apart: logits of up to 20
@examples(80)
def test_equals_what_vllm_keeps(seed: int, top_k: int, top_p: float, temperature: float) -> None:
    truncation = Truncation(top_k, top_p)
    logits = _logits(7, 60, seed)
    # Where a sum of probabilities is top_p to rounding, one token more or less is right too.
    sums = _sums_that_top_p_cuts(logits / temperature, truncation)
    assume(top_p == 1 or (sums - top_p).abs().min() > rounding(60))
    found = log_mass(logits, torch.full((7,), temperature), truncation)
    wanted = _kept_by_vllm(logits / temperature, truncation)
    tolerance = _rounding(logits / temperature)
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)
    assert (found <= 0).all()


def test_nothing_is_lost_without_truncation() -> None:
    assert not Truncation().enabled
    assert not Truncation.of({"top_k": -1, "top_p": 1.0}).enabled
    assert Truncation.of({"top_k": 50, "top_p": 1.0}).enabled
    assert Truncation.of({"top_k": -1, "top_p": 0.9}).enabled
    for truncation in (Truncation(), Truncation(top_k=1000)):
        logits = _logits(5, 40)
        mass = log_mass(logits, torch.ones(5), truncation)
        torch.testing.assert_close(mass, torch.zeros(5), atol=_rounding(logits), rtol=0)


def test_long_batches_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, temperature = _logits(50, 30), torch.linspace(0.5, 2, 50)
    whole = log_mass(logits, temperature, Truncation(top_k=3))
    monkeypatch.setattr("rsp_rl.training.truncation._CHUNK_TOKENS", 7)
    assert torch.equal(log_mass(logits, temperature, Truncation(top_k=3)), whole)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits = _logits(9, 5000, spread=1.0).bfloat16()
    mass = log_mass(logits, torch.ones(9), Truncation(top_k=50))
    assert mass.dtype == torch.float32
    # Not vLLM's: of equal logits at the border, which bf16 makes many, it keeps all.
    wanted = logits.double().topk(50).values.logsumexp(-1) - logits.double().logsumexp(-1)
    torch.testing.assert_close(mass, wanted.float(), atol=_rounding(logits), rtol=0)


def test_masked_tokens_add_nothing() -> None:
    logits = _logits(4, 10)
    logits[:, 3:] = -math.inf
    mass = log_mass(logits, torch.ones(4), Truncation(top_k=5))
    torch.testing.assert_close(mass, torch.zeros(4), atol=_rounding(logits), rtol=0)
