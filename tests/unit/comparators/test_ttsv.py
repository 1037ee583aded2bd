"""TTSV: entropy by hand, and the entropy of a tiny model's own answers falling."""

from __future__ import annotations

import math

import pytest
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.training import Answered, descend, mean_loss, shuffled_batches, token_losses
from rsp_rl.comparators.ttsv import Prefix, TtsvTraining, entropy, train
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.requests import Request
from tests.tolerances import FORWARD, rounding
from tests.unit.comparators.conftest import assert_frozen, request, weights

SETTINGS = TtsvTraining(length=4, epochs=6, batch_size=4, learning_rate=0.05, max_tokens=8)


def made_epochs(engine: HuggingFaceEngine, settings: TtsvTraining) -> list[list[Request]]:
    return [
        [
            request(
                *(engine, f"Compute {number}+2."),
                length=settings.length,
                position="prefix",
                seed=100 * epoch + number,
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
            )
            for number in range(8)
        ]
        for epoch in range(settings.epochs)
    ]


def test_entropy_by_hand() -> None:
    certain, halves = torch.tensor([50.0, 0, 0, 0]), torch.tensor([0.5, 0.5, 0, 0]).log()
    quarters = torch.tensor([0.5, 0.25, 0.25, 1e-30]).log()
    found = entropy(torch.stack([torch.zeros(4), certain, halves.clamp(min=-80), quarters]))
    by_hand = [math.log(4), 0, math.log(2), 1.5 * math.log(2)]
    # Four products p log p, each a few roundings of a number below 2.
    torch.testing.assert_close(found, torch.tensor(by_hand), atol=rounding(16, size=2), rtol=0)


def test_entropy_of_own_answers_falls(engine: HuggingFaceEngine) -> None:
    before, epochs = weights(engine.host.network), made_epochs(engine, SETTINGS)
    seen: list[float] = []
    prefix, course = train(engine, epochs, SETTINGS, on_step=seen.append)
    assert prefix.shape == (4, engine.host.hidden_size)
    assert len(course) == 6
    assert len(seen) == 12
    assert course[-1] < course[0] - 0.05
    assert_frozen(engine.host.network, before)


def test_seeds_make_it_repeatable(engine: HuggingFaceEngine) -> None:
    settings = TtsvTraining(length=2, epochs=2, batch_size=4, max_tokens=4)
    epochs = made_epochs(engine, settings)
    first, again = (train(engine, epochs, settings) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    other = TtsvTraining(length=2, epochs=2, batch_size=4, max_tokens=4, seed=16)
    assert not torch.equal(train(engine, epochs, other)[0], first[0])


def test_a_step_is_on_the_mean_over_all_tokens(engine: HuggingFaceEngine) -> None:
    """Not on the mean of the answers' means: a long answer counts for more."""
    rows = torch.randn(4, engine.host.hidden_size, requires_grad=True)
    answers = [[20, 21], [30, 31, 32, 33, 34]]
    batch = [
        Answered(request(engine, f"Compute {i}+2."), ids, lambda: rows)
        for i, ids in enumerate(answers)
    ]
    losses = torch.cat([token_losses(engine.host, one, entropy) for one in batch])
    assert losses.shape == (7,)
    (gradient,) = torch.autograd.grad(losses.mean(), rows)
    expected = rows.detach() - 0.5 * gradient
    optimizer = torch.optim.SGD([rows], lr=0.5)
    mean = float(losses.detach().mean())
    assert descend(engine.host, batch, entropy, optimizer) == pytest.approx(mean, abs=FORWARD)
    torch.testing.assert_close(rows.detach(), expected, rtol=0, atol=FORWARD)
    assert mean_loss(engine.host, batch, entropy) < mean


def test_accumulated_mini_batches_count_the_same(engine: HuggingFaceEngine) -> None:
    """Whatever their answers' lengths, the last one too, though it holds fewer."""
    rows = torch.randn(4, engine.host.hidden_size, requires_grad=True)
    answers = [[20, 21], [30, 31, 32, 33, 34], [40]]
    batch = [
        Answered(request(engine, f"Compute {i}+2."), ids, lambda: rows)
        for i, ids in enumerate(answers)
    ]
    losses = [token_losses(engine.host, one, entropy) for one in batch]
    mean = (torch.cat(losses[:2]).mean() + losses[2].mean()) / 2
    (gradient,) = torch.autograd.grad(mean, rows)
    expected = rows.detach() - 0.5 * gradient
    optimizer = torch.optim.SGD([rows], lr=0.5)
    found = descend(engine.host, batch, entropy, optimizer, batch_size=2)
    assert found == pytest.approx(float(mean.detach()), abs=FORWARD)
    torch.testing.assert_close(rows.detach(), expected, rtol=0, atol=FORWARD)


def test_steps_are_of_all_accumulated_problems(engine: HuggingFaceEngine) -> None:
    settings = TtsvTraining(length=2, epochs=1, batch_size=2, accumulation=2, max_tokens=2)
    seen: list[float] = []
    train(engine, made_epochs(engine, settings), settings, on_step=seen.append)
    assert len(seen) == 2  # of 8 problems


def test_gradients_are_clipped(engine: HuggingFaceEngine) -> None:
    rows = torch.randn(4, engine.host.hidden_size, requires_grad=True)
    start = rows.detach().clone()
    batch = [Answered(request(engine), [20, 21], lambda: rows)]
    optimizer = torch.optim.SGD([rows], lr=1.0)
    descend(engine.host, batch, entropy, optimizer, max_grad_norm=1e-3)
    # torch divides by the norm + 1e-6; each entry, of size 4, is rounded when it is moved.
    moved = float((rows.detach() - start).norm())
    assert moved == pytest.approx(1e-3, abs=1e-6 + rounding(1, size=4) * rows.numel() ** 0.5)


def test_the_losses_of_an_answer_are_those_of_its_tokens(engine: HuggingFaceEngine) -> None:
    asked, ids = request(engine), [20, 21, 22]
    rows = asked.record.draw(engine.host.hidden_size)
    tokens = asked.token_ids + ids
    logits = engine.host.logits(tokens, asked.record.start, rows, len(tokens))
    chosen_by = logits[len(asked.token_ids) - 1 : -1]
    found = token_losses(engine.host, Answered(asked, ids, lambda: rows), entropy)
    torch.testing.assert_close(found, entropy(chosen_by), rtol=0, atol=FORWARD)


def test_batches_hold_each_number_once() -> None:
    batches = shuffled_batches(10, 4, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(number for batch in batches for number in batch) == list(range(10))
    assert batches != shuffled_batches(10, 4, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"length": 0}, "--length 0 must be above 0"),
        ({"batch_size": -1}, "--batch-size -1 must be above 0"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1 must be from 0 on"),
        ({"learning_rate": math.nan}, "--learning-rate nan must be above 0"),
    ],
)
def test_bad_settings(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TtsvTraining(**setting)


def test_no_problems(engine: HuggingFaceEngine) -> None:
    with pytest.raises(ConfigError, match="no problems to train on"):
        train(engine, [[], []], SETTINGS)


def test_every_request_gets_the_same_rows() -> None:
    rows = torch.randn(2, 3)
    assert Prefix(rows).rows(Request(0, [1], {})) is rows
