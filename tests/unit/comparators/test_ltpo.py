"""LTPO: reward and update by hand, and the confidence of a tiny model rising."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo, LtpoSoftPrompts, confidence, optimise, policy_gradient
from rsp_rl.dials.options import RspOptions
from rsp_rl.inference.huggingface import HuggingFaceEngine
from tests.tolerances import FORWARD, chance, rounding
from tests.unit.comparators.conftest import assert_frozen, request, weights

#: Of a reward of float32 logits: up to -log 1e-10 = 23, through softmax, logarithm and mean.
ROUNDING = rounding(8, size=23)

#: Steps that suit the size of the tiny model's embeddings.
TINY = Ltpo(sigma=0.3, learning_rate=0.01, steps=60)


def test_reward_by_hand() -> None:
    uniform, unequal = torch.zeros(8), torch.tensor([0.1, 0.7, 0.2] + [1e-30] * 5).log()
    assert float(confidence(uniform[None], 3)) == pytest.approx(math.log(8), abs=ROUNDING)
    by_hand = -(math.log(0.7) + math.log(0.2)) / 2
    assert float(confidence(unequal[None], 2)) == pytest.approx(by_hand, abs=ROUNDING)
    both = confidence(torch.stack([uniform, unequal]), 2)
    assert float(both) == pytest.approx((math.log(8) + by_hand) / 2, abs=ROUNDING)
    # Whoever is sure of one token has next to nothing left for the others: up to -log 1e-10 each.
    sure = torch.tensor([100.0] + [0.0] * 7)
    assert float(confidence(sure[None], 2)) == pytest.approx(-math.log(1e-10) / 2, abs=ROUNDING)


@given(
    st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=12),
    st.integers(1, 4),
    st.floats(-5, 5, width=32),
)
def test_reward_of_any_distribution(logits: list[float], k: int, shift: float) -> None:
    """Least, log k, where k tokens share everything; and a matter of probabilities alone."""
    row = torch.tensor([logits])
    reward = float(confidence(row, k))
    assert reward >= math.log(k) - ROUNDING
    # The shifted logits, of up to 14, are rounded themselves.
    shifted = float(confidence(row + shift, k))
    assert reward == pytest.approx(shifted, abs=ROUNDING + rounding(2, size=14))
    assert reward == pytest.approx(float(confidence(row.flip(1), k)), abs=ROUNDING)


def test_the_policy_gradient_is_the_gradient_of_the_log_density() -> None:
    mean = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(3, 5, dtype=torch.float64)
    density = Normal(mean, 0.3).log_prob((mean + noise).detach()).sum()
    (gradient,) = torch.autograd.grad(7.0 * density, mean)
    torch.testing.assert_close(policy_gradient(noise, 7.0, 0.3), gradient)


def test_the_policy_gradient_is_right_on_average() -> None:
    """Of a linear reward it is the slope, whatever sigma is."""
    slope, sigma = torch.tensor([[2.0, -1.0]]), 0.5
    noise = sigma * torch.randn(20_000, 1, 2, generator=torch.Generator().manual_seed(0))
    estimates = [policy_gradient(one, float((slope * one).sum()), sigma) for one in noise]
    # An estimate's variance: 2 a^2 + b^2 of the slopes a, b, at most 9.
    found = torch.stack(estimates).mean(0)
    torch.testing.assert_close(found, slope, atol=chance(3, len(estimates)), rtol=0)


def test_two_steps_by_hand() -> None:
    settings = Ltpo(sigma=0.5, sigma_decay=0.5, learning_rate=0.1, steps=2)
    start = torch.tensor([[1.0, 2.0]])
    generator = torch.Generator().manual_seed(4)
    first, second = (torch.randn(1, 2, generator=generator) for _ in range(2))
    candidates = []

    def reward_of(rows: torch.Tensor) -> float:
        candidates.append(rows)
        return [3.0, 2.0][len(candidates) - 1]

    course = optimise(reward_of, start, settings, 4)
    after_first = start + 0.1 * 3.0 * (0.5 * first) / 0.25
    few = {"rtol": 0, "atol": rounding(8, size=8)}
    torch.testing.assert_close(candidates[0], start + 0.5 * first, **few)
    torch.testing.assert_close(candidates[1], after_first + 0.25 * second, **few)
    # The first candidate was the better one: H is kept as its update left it.
    torch.testing.assert_close(course.rows, after_first, **few)
    assert course.rewards == [3.0, 2.0]


def test_the_models_confidence_rises(engine: HuggingFaceEngine) -> None:
    before = weights(engine.host.network)
    soft_prompts, gains = LtpoSoftPrompts(TINY, engine.host), []
    for number in range(4):
        asked = request(engine, f"Compute {number}+3.", seed=number)
        record, table = asked.record, engine.host.network.get_input_embeddings().weight
        start = table[asked.token_ids[record.start : record.start + record.length]]
        course = soft_prompts.optimise(asked)
        at_start = soft_prompts.reward(asked, start)
        assert max(course.rewards) > at_start
        gains.append(soft_prompts.reward(asked, course.rows) - at_start)
    assert min(gains) > 0
    assert_frozen(engine.host.network, before)


def test_the_seed_decides(engine: HuggingFaceEngine) -> None:
    soft_prompts = LtpoSoftPrompts(TINY, engine.host)
    first, again, other = (soft_prompts.rows(request(engine, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (4, engine.host.hidden_size)


def test_the_reward_is_that_of_the_prompt_up_to_the_token_after(engine: HuggingFaceEngine) -> None:
    asked, settings = request(engine), Ltpo(top_k=5)
    rows = torch.randn(4, engine.host.hidden_size)
    start, ids = asked.record.start, asked.token_ids
    whole = engine.host.logits(ids, start, rows, len(ids))[start : start + 5]
    reward = LtpoSoftPrompts(settings, engine.host).reward(asked, rows)
    assert reward == pytest.approx(float(confidence(whole, 5)), abs=FORWARD)
    # At a prompt's very end, there is no token after.
    last = replace(asked, token_ids=ids[: start + 4])
    alone = LtpoSoftPrompts(settings, engine.host).reward(last, rows)
    assert alone == pytest.approx(float(confidence(whole[:4], 5)), abs=FORWARD)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "comparator.sigma=0.0 must be a number above 0"),
        ({"learning_rate": math.nan}, "comparator.learning_rate=nan"),
        ({"steps": 0}, "comparator.steps=0 must be at least 1"),
    ],
)
def test_bad_settings(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ltpo(**settings)


def test_more_tokens_than_there_are(engine: HuggingFaceEngine) -> None:
    Ltpo().check(engine.host.folder, RspOptions())
    with pytest.raises(ConfigError, match=r"comparator.top_k=100000 is more than the \d+ tokens"):
        Ltpo(top_k=100_000).check(engine.host.folder, RspOptions())
