"""The guard's numbers of steps with thoughts, and when it stops a run."""

from __future__ import annotations

import dataclasses
import logging
import math

import pytest
import torch

from rsp_rl.basics.errors import PolicyMismatchError
from rsp_rl.dials.options import GuardOptions
from rsp_rl.training.guard import (
    StepSamples,
    StepThoughts,
    check_gap,
    check_not_forgotten,
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


@pytest.mark.parametrize(("name", "bound"), [("relative_error_mean", 0.1), ("flips", 0.2)])
def test_dense_laws_have_bounds_of_their_own(name: str, bound: float, caplog) -> None:
    bounds, options = ThoughtGuard(), GuardOptions(steps=2)
    check_thoughts({f"rsp/law/{name}": bound}, bounds, options, 1)
    wrong = {f"rsp/law/{name}": bound + 0.05}
    with pytest.raises(PolicyMismatchError, match=f"rsp/law/{name} is {bound + 0.05:.3g}, above"):
        check_thoughts(wrong, bounds, options, 2)
    with caplog.at_level(logging.WARNING):
        check_thoughts(wrong, bounds, options, 3)
    assert "make other thoughts" in caplog.text
    with pytest.raises(PolicyMismatchError):
        check_thoughts({f"rsp/law/{name}": float("inf")}, bounds, options, 1)


NAN = torch.nan
#: What forgetting would make is known of three thoughts.
FORGOTTEN = torch.tensor([[0.9, 0.7, NAN, NAN], [1.5, NAN, NAN, NAN]])


def test_what_forgetting_would_make_is_told_of_the_thoughts_that_have_it() -> None:
    own = torch.tensor([[0.3, 0.1, 9, 9], [0.2, 9, 9, 9]])
    metrics = step_metrics(samples(StepThoughts(THOUGHTS, gaps=own, forgotten=FORGOTTEN)))
    assert metrics["rsp/law/compared"] == 3
    assert metrics["rsp/law/compared_gap_mean"] == pytest.approx(0.2, abs=ROUNDING)
    assert metrics["rsp/law/forgotten_gap_mean"] == pytest.approx(3.1 / 3, abs=ROUNDING)
    more = torch.tensor([0.6, 0.6, 1.3])
    t = float(more.mean() / (more.std() / 3**0.5))
    nearer = math.sqrt(2 * math.log1p(t * t / 2)) * 17 / 19
    assert metrics["rsp/law/nearer"] == pytest.approx(nearer, rel=1e-5)
    # Without a gap of its own a law's are those of log-probs, a draw.
    of_draws = step_metrics(samples(StepThoughts(THOUGHTS, draws=3, forgotten=-2 + FORGOTTEN)))
    assert of_draws["rsp/law/compared_gap_mean"] == pytest.approx(0.2, abs=ROUNDING)
    assert of_draws["rsp/law/forgotten_gap_mean"] == pytest.approx(3.1 / 9, abs=ROUNDING)
    unasked = step_metrics(samples(StepThoughts(THOUGHTS, draws=3)))
    assert "rsp/law/compared" not in unasked


def compared(
    gap: float, would: float, nearer: float, count: int = 100, moved: float = 1.0
) -> dict[str, float]:
    return {
        "rsp/law/thoughts_mean": 9.0,
        "rsp/law/compared": float(count),
        "rsp/law/moved": moved,
        "rsp/law/compared_gap_mean": gap,
        "rsp/law/forgotten_gap_mean": would,
        "rsp/law/nearer": nearer,
    }


@pytest.mark.parametrize(
    ("found", "stops"),
    [
        (compared(1e-7, 0.04, 2.0), False),  # few of them, and exact ones
        (compared(0.04, 0.05, 3.5), False),  # rounding is large, and so are their numbers
        (compared(0.04, 0.04, 0.0, moved=0.0), True),
        (compared(0.04, 0.04, 0.0, count=1, moved=0.0), True),
        (compared(0.06, 0.04, -4.0, count=9), True),
        (compared(float("inf"), 0.04, float("nan"), count=9), True),
        (compared(0.06, 0.05, -3.1, count=288), True),
        (compared(0.06, 0.04, -4.0), True),  # other samples' thoughts
        (compared(float("inf"), 0.04, float("nan")), True),
        ({}, False),
    ],
)
def test_an_actor_that_is_no_nearer_than_a_forgetful_one_is_stopped(
    found: dict[str, float], stops: bool, caplog
) -> None:
    check_not_forgotten(found, GuardOptions(steps=0), 1)
    assert ("no nearer to the one" in caplog.text) == stops
    if not stops:
        return check_not_forgotten(found, GuardOptions(), 1)
    with pytest.raises(PolicyMismatchError, match="in the place of thoughts: the rollout is no"):
        check_not_forgotten(found, GuardOptions(), 1)


@pytest.mark.parametrize(("count", "nearer"), [(1, 0.0), (3, 1.0), (99, 1.0), (288, 2.3)])
def test_thoughts_within_rounding_stop_no_run(count: int, nearer: float, caplog) -> None:
    """Of one there is no error at all, and a right one's bf16 is often over half of what it makes.

    As of a micro-batch of one rollout with two thoughts, and of 288 of NEFTune's on a real model
    (scripts/bench/forgotten_thoughts.py).
    """
    check_not_forgotten(compared(0.028, 0.034, nearer, count), GuardOptions(), 1)
    assert "too little to tell" in caplog.text


def test_how_many_thoughts_an_actor_scores_otherwise_than_a_forgetful_one() -> None:
    own = torch.tensor([[0.9, 0.1, 9, 9], [1.5, 9, 9, 9]])
    metrics = step_metrics(samples(StepThoughts(THOUGHTS, gaps=own, forgotten=FORGOTTEN)))
    assert metrics["rsp/law/moved"] == pytest.approx(1 / 3)


def test_thoughts_that_are_tokens_are_said_to_tell_nothing(caplog) -> None:
    nowhere = torch.full_like(FORGOTTEN, NAN)
    metrics = step_metrics(samples(StepThoughts(THOUGHTS, forgotten=nowhere)))
    assert metrics["rsp/law/compared"] == 0
    check_not_forgotten(metrics, GuardOptions(), 1)
    assert "tells whether the actor has it" in caplog.text
    caplog.clear()
    none = step_metrics(samples(StepThoughts(THOUGHTS & False, forgotten=nowhere)))
    check_not_forgotten(none, GuardOptions(), 1)
    assert "no rollout of this step had a thought" in caplog.text


def test_mixtures_of_one_token_tell_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Their gap is 0 whatever the actor does: were they compared, a sure model's run would stop."""
    nothing = torch.where(FORGOTTEN.isnan(), FORGOTTEN, 0.0)
    metrics = step_metrics(samples(StepThoughts(THOUGHTS, gaps=0 * GAPS, forgotten=nothing)))
    assert metrics["rsp/law/compared"] == 0
    check_not_forgotten(metrics, GuardOptions(), 1)
    assert "no thought of this step's first micro-batches tells" in caplog.text
    lost = torch.full_like(GAPS, NAN)
    metrics = step_metrics(samples(StepThoughts(THOUGHTS, gaps=lost, forgotten=nothing)))
    assert metrics["rsp/law/compared_gap_mean"] == math.inf
