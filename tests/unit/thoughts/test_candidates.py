"""Filters and draws, against a loop over one row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rsp_rl.thoughts.candidates import candidates, draw
from rsp_rl.thoughts.laws.token import Token
from rsp_rl.thoughts.noise import Noise
from tests.properties import examples
from tests.tolerances import rounding
from tests.unit.thoughts.naive import NaiveNoise, drawn, filtered

LAWS = st.builds(
    Token,
    temperature=st.sampled_from([0.3, 0.6, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 20]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)


def made_logits(seed: int, count: int, vocabulary: int, size: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, vocabulary, generator=generator)


@examples(60)
@given(LAWS, st.integers(0, 10**6))
def test_filters_and_draws_are_the_naive_ones(law: Token, seed: int) -> None:
    logits_NV = made_logits(seed, 3, 40)
    log_NC, ids_NC = candidates(law, logits_NV, 40)
    noise = Noise(torch.tensor([1, 2, 3]), torch.tensor([5, 5, 6]))
    draws_NS = draw(law, logits_NV, noise, [0, 3])
    for row, key in enumerate([(1, 5), (2, 5), (3, 6)]):
        expected = filtered(law, logits_NV[row].double().tolist())
        kept = log_NC[row] > -torch.inf
        assert ids_NC[row][kept].tolist() == list(expected)
        p = torch.tensor(list(expected.values()))
        tolerance = rounding(64)
        torch.testing.assert_close(log_NC[row][kept].exp(), p, rtol=0, atol=tolerance)
        naive = [drawn(expected, NaiveNoise(*key), slot) for slot in (0, 3)]
        assert draws_NS[row].tolist() == naive


@pytest.mark.parametrize("most", [1, 3, 10])
def test_the_likeliest_alone(most: int) -> None:
    logits_NV = made_logits(0, 2, 40)
    log_NC, ids_NC = candidates(Token(top_k=10, top_p=0.9), logits_NV, most)
    whole_NC, all_ids_NC = candidates(Token(top_k=10, top_p=0.9), logits_NV, 10)
    assert torch.equal(log_NC, whole_NC[:, :most])
    assert torch.equal(ids_NC, all_ids_NC[:, :most])


def test_draws_beyond_the_likeliest() -> None:
    """A flat vocabulary: most of the mass is that of tokens without noise of their own."""
    vocabulary, count = 200, 40_000
    logits_V = made_logits(1, 1, vocabulary, size=0.7)[0]
    noise = Noise(torch.arange(count), torch.full((count,), 12))
    p = torch.softmax(logits_V.double(), 0)
    assert 0.2 < 1 - float(p.topk(64).values.sum()) < 0.6
    draws_NS = draw(Token(), logits_V.expand(count, -1), noise, [0, 1])
    for slot in (0, 1):
        seen = torch.bincount(draws_NS[:, slot], minlength=vocabulary)
        assert stats.chisquare(seen.numpy(), (count * p).numpy()).pvalue > 0.001


@pytest.mark.parametrize("rest", [-torch.inf, -60.0])  # 1e-26 of the mass: nothing to float32
def test_a_tail_of_nothing_is_never_drawn(rest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the bound of its mass wins."""
    monkeypatch.setattr("rsp_rl.thoughts.candidates._ROUNDING", 0.2)
    logits_V = torch.full((66,), rest)
    logits_V[:60] = made_logits(2, 1, 60)[0]
    noise = Noise(torch.arange(2000), torch.full((2000,), 3))
    assert int(draw(Token(), logits_V.expand(2000, -1), noise, [0]).max()) < 60


def test_the_bound_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_NV = made_logits(1, 2000, 200, size=1.5)
    noise = Noise(torch.arange(2000), torch.full((2000,), 3))
    before = draw(Token(), logits_NV, noise, [0, 1])
    monkeypatch.setattr("rsp_rl.thoughts.candidates._ROUNDING", 0.5)
    assert torch.equal(draw(Token(), logits_NV, noise, [0, 1]), before)


def test_near_ties_do_not_deal_the_noise_anew() -> None:
    logits_NV = torch.zeros(500, 300)
    noise = Noise(torch.arange(500), torch.arange(500))
    nudged_NV = logits_NV + 1e-6 * made_logits(3, 500, 300)
    law = Token(top_k=0, top_p=0.9999)  # all but one have noise of their own
    before, after = (draw(law, each, noise, [0]) for each in (logits_NV, nudged_NV))
    assert float((before == after).double().mean()) > 0.99
