"""The guard's numbers of steps with thoughts, and when it stops a run."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch

from rsp_rl.basics.errors import PolicyMismatchError
from rsp_rl.dials.options import GuardOptions
from rsp_rl.training.guard import (
    StepSamples,
    StepThoughts,
    check_gap,
    check_thoughts,
    step_metrics,
)
from rsp_rl.training.thought_options import ThoughtGuard
from tests.tolerances import rounding

#: The last position of the second sample is a forced token.
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
THOUGHTS = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]).bool()
GAPS = torch.tensor([[0.3, 0.6, 0.01, 0.03], [0.9, 0.02, 9, 9]])
ROUNDING = rounding(8, size=4)


def samples(thoughts: StepThoughts | None, **changes) -> StepSamples:
    rollout = torch.full((2, 4), -2.0)
    made = StepSamples(
        rollout_log_probs=rollout,
        actor_log_probs=rollout + GAPS,
        response_mask=MASK,
        rewards=torch.tensor([1.0, 0.0]),
        soft_prompt_lengths=torch.tensor([0, 0]),
        thoughts=thoughts,
    )
    return dataclasses.replace(made, **changes)


def test_a_positions_gap_is_shared_by_its_draws() -> None:
    metrics = step_metrics(samples(StepThoughts(THOUGHTS, draws=3)))
    assert metrics["rsp/law/gap_mean"] == pytest.approx(0.2, abs=ROUNDING)
    assert metrics["rsp/logprob_gap_mean"] == pytest.approx(0.66 / 6, abs=ROUNDING)
    assert metrics["rsp/law/thoughts_mean"] == 1.5
    assert metrics["rsp/off/response_length_mean"] == 3


def test_a_laws_own_gap_counts_where_log_probs_say_nothing() -> None:
    own = torch.full((2, 4), 0.05)
    metrics = step_metrics(samples(StepThoughts(THOUGHTS, gaps=own)))
    assert metrics["rsp/law/gap_mean"] == pytest.approx(0.05, abs=ROUNDING)
    assert metrics["rsp/logprob_gap_mean"] == pytest.approx(0.21 / 6, abs=ROUNDING)


def test_dense_laws_have_errors_and_flips_instead() -> None:
    thoughts = StepThoughts(THOUGHTS, gaps=GAPS, flips=torch.tensor([[0.0, 1, 1, 1], [0, 0, 0, 0]]))
    metrics = step_metrics(samples(thoughts))
    assert metrics["rsp/law/relative_error_mean"] == pytest.approx(0.6, abs=ROUNDING)
    assert metrics["rsp/law/flips"] == pytest.approx(1 / 3, abs=ROUNDING)
    assert metrics["rsp/logprob_gap_mean"] == pytest.approx(0.06 / 3, abs=ROUNDING)
    assert "rsp/law/gap_mean" not in metrics
    # A step of nothing but thoughts has no token to compare.
    every = step_metrics(samples(dataclasses.replace(thoughts, mask=MASK.bool())))
    assert every["rsp/logprob_gap_mean"] == every["rsp/logprob_gap_max"] == 0


def test_what_truncation_makes_is_none_of_the_thoughts() -> None:
    log_mass = torch.full((2, 4), -0.5)
    found = step_metrics(
        samples(StepThoughts(THOUGHTS, draws=3), log_mass=log_mass, renormalized=True)
    )
    assert found["rsp/law/gap_mean"] == pytest.approx(0.2, abs=ROUNDING)
    assert found["rsp/truncation_gap_mean"] == pytest.approx(0.25, abs=ROUNDING)


def test_a_run_without_a_law_has_no_such_numbers() -> None:
    assert not any(name.startswith("rsp/law") for name in step_metrics(samples(None)))


def test_few_wrong_thoughts_do_not_hide_among_many_tokens() -> None:
    metrics = {"rsp/logprob_gap_mean": 1e-6, "rsp/law/gap_mean": 0.4}
    with pytest.raises(PolicyMismatchError, match=r"thoughts: 0\.4"):
        check_gap(metrics, GuardOptions(), 1)


@pytest.mark.parametrize("name", ["relative_error_mean", "flips"])
def test_dense_laws_have_bounds_of_their_own(name: str, caplog) -> None:
    bounds, options = ThoughtGuard(), GuardOptions(steps=2)
    check_thoughts({f"rsp/law/{name}": 0.05}, bounds, options, 1)
    wrong = {f"rsp/law/{name}": 0.06}
    with pytest.raises(PolicyMismatchError, match=f"rsp/law/{name} is 0.06, above law.guard"):
        check_thoughts(wrong, bounds, options, 2)
    with caplog.at_level(logging.WARNING):
        check_thoughts(wrong, bounds, options, 3)
    assert "make other thoughts" in caplog.text
    with pytest.raises(PolicyMismatchError):
        check_thoughts({f"rsp/law/{name}": float("inf")}, bounds, options, 1)
