"""The guard's numbers on hand-made steps, and when it stops a run."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from rsp_rl.basics.errors import PolicyMismatchError
from rsp_rl.dials.options import GuardOptions
from rsp_rl.training.guard import (
    StepSamples,
    check_gap,
    check_soft_prompts,
    has_own_tokens,
    rollout_gaps,
    step_metrics,
    tells_of_forgetting,
)
from tests.tolerances import chance, rounding

MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]])
NAN = math.nan

#: Log-probs of up to 4 that a gap is added to and taken from, then a mean, in float32.
ROUNDING = rounding(4, size=4)


def _samples(**changes: torch.Tensor) -> StepSamples:
    """Three responses of 3, 1 and 2 tokens; gaps .1 .2 .3 / .0 / .5 .1; padding far apart."""
    rollout = torch.tensor([[-1.0, -2, -3, 50], [-1, 99, 99, 99], [-0.5, -4, 0, -70]])
    gaps = torch.tensor([[0.1, -0.2, 0.3, 9], [0.0, 9, 9, 9], [-0.5, 0.1, 9, 9]])
    values = {
        "rollout_log_probs": rollout,
        "actor_log_probs": rollout + gaps,
        "response_mask": MASK,
        "rewards": torch.tensor([1.0, 0.0, 0.25]),
        "soft_prompt_lengths": torch.tensor([20, 0, 8]),
    }
    return StepSamples(**{**values, **changes})


def test_gap_over_response_tokens_alone() -> None:
    metrics = step_metrics(_samples())
    assert metrics["rsp/logprob_gap_mean"] == pytest.approx(1.2 / 6, abs=ROUNDING)
    assert metrics["rsp/logprob_gap_max"] == pytest.approx(0.5, abs=ROUNDING)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.uint8])
def test_mask_of_any_dtype(dtype: torch.dtype) -> None:
    assert step_metrics(_samples(response_mask=MASK.to(dtype))) == step_metrics(_samples())


def test_split_by_rsp_on_and_off() -> None:
    metrics = step_metrics(_samples())
    assert metrics["rsp/rollouts"] == 2
    assert metrics["rsp/on/reward_mean"] == pytest.approx(0.625)
    assert metrics["rsp/on/response_length_mean"] == pytest.approx(2.5)
    assert metrics["rsp/on/logprob_gap_mean"] == pytest.approx(1.2 / 5, abs=ROUNDING)
    assert metrics["rsp/off/logprob_gap_mean"] == 0
    assert metrics["rsp/off/reward_mean"] == 0
    assert metrics["rsp/off/response_length_mean"] == 1


@pytest.mark.parametrize(("lengths", "kind"), [([8, 8, 8], "on"), ([0, 0, 0], "off")])
def test_kinds_that_do_not_occur_are_left_out(lengths: list[int], kind: str) -> None:
    metrics = step_metrics(_samples(soft_prompt_lengths=torch.tensor(lengths)))
    assert metrics["rsp/rollouts"] == (3 if kind == "on" else 0)
    assert {name for name in metrics if "/o" in name} == {
        f"rsp/{kind}/logprob_gap_mean",
        f"rsp/{kind}/reward_mean",
        f"rsp/{kind}/response_length_mean",
    }
    assert metrics[f"rsp/{kind}/reward_mean"] == pytest.approx(1.25 / 3, abs=ROUNDING)


def test_all_metrics_are_plain_numbers() -> None:
    assert all(type(value) is float for value in step_metrics(_samples()).values())


@pytest.mark.parametrize("side", ["rollout_log_probs", "actor_log_probs"])
@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_what_is_no_number_is_an_infinite_gap(side: str, value: float) -> None:
    broken = getattr(_samples(), side).clone()
    broken[2, 1] = value
    metrics = step_metrics(_samples(**{side: broken}))
    assert metrics["rsp/logprob_gap_mean"] == math.inf
    assert metrics["rsp/logprob_gap_max"] == math.inf
    with pytest.raises(PolicyMismatchError):
        check_gap(metrics, GuardOptions(), 1)


def test_nan_in_padding_does_not_count() -> None:
    broken = torch.where(MASK.bool(), _samples().actor_log_probs, NAN)
    assert step_metrics(_samples(actor_log_probs=broken)) == step_metrics(_samples())


def test_minus_infinity_on_both_sides_is_no_agreement() -> None:
    both = torch.where(MASK.bool(), -math.inf, 0.0)
    metrics = step_metrics(_samples(rollout_log_probs=both, actor_log_probs=both))
    assert metrics["rsp/logprob_gap_mean"] == math.inf


def test_a_step_without_response_tokens_is_named() -> None:
    with pytest.raises(PolicyMismatchError, match="no response token"):
        step_metrics(_samples(response_mask=torch.zeros_like(MASK)))


def test_an_empty_response_among_others() -> None:
    mask = MASK.clone()
    mask[1] = 0
    metrics = step_metrics(_samples(response_mask=mask))
    assert metrics["rsp/off/response_length_mean"] == 0
    assert metrics["rsp/logprob_gap_mean"] == pytest.approx(1.2 / 5, abs=ROUNDING)


LOG_MASS = torch.tensor([[-0.1, -0.3, -0.2, 7], [-0.6, 7, 7, 7], [0.0, -0.6, 7, 7]])


@pytest.mark.parametrize("renormalized", [True, False])
def test_truncation_is_measured_apart(renormalized: bool) -> None:
    """However the rollout reports its log-probs, the gap is that of one policy."""
    samples = _samples()
    rollout = samples.rollout_log_probs - (LOG_MASS if renormalized else 0)
    metrics = step_metrics(
        _samples(rollout_log_probs=rollout, log_mass=LOG_MASS, renormalized=renormalized)
    )
    assert metrics["rsp/truncation_gap_mean"] == pytest.approx(1.8 / 6, abs=ROUNDING)
    assert metrics["rsp/truncation_gap_max"] == pytest.approx(0.6, abs=ROUNDING)
    for name, value in step_metrics(samples).items():
        assert metrics[name] == pytest.approx(value, abs=ROUNDING)


def test_truncation_neither_stops_a_run_nor_hides_a_forgotten_soft_prompt() -> None:
    mask, log_mass = torch.ones(8, 50), torch.full((8, 50), -0.2)
    actor = torch.full((8, 50), -1.0)
    for forgotten, stops in ((0.0, False), (0.15, True)):
        samples = _samples(
            rollout_log_probs=actor + forgotten - log_mass,
            actor_log_probs=actor,
            response_mask=mask,
            rewards=torch.zeros(8),
            soft_prompt_lengths=torch.full((8,), 20),
            log_mass=log_mass,
            renormalized=True,
        )
        metrics = step_metrics(samples)
        assert metrics["rsp/logprob_gap_mean"] == pytest.approx(forgotten, abs=ROUNDING)
        if stops:
            with pytest.raises(PolicyMismatchError):
                check_gap(metrics, GuardOptions(), 1)
        else:
            check_gap(metrics, GuardOptions(), 1)


def test_a_forgotten_soft_prompt_of_a_few_rollouts_is_seen() -> None:
    """rsp.probability=0.05: the mean over all rollouts stays far below the bound."""
    actor = torch.full((20, 10), -1.0)
    rollout = actor.clone()
    rollout[3] += 0.2
    lengths = torch.zeros(20, dtype=torch.int64)
    lengths[3] = 20
    samples = StepSamples(rollout, actor, torch.ones(20, 10), torch.zeros(20), lengths)
    metrics = step_metrics(samples)
    assert metrics["rsp/logprob_gap_mean"] == pytest.approx(0.01, abs=ROUNDING)
    with pytest.raises(PolicyMismatchError, match=r"with soft prompts: 0\.2, without: 0\)"):
        check_gap(metrics, GuardOptions(), 1)


def _gap(value: float) -> dict[str, float]:
    return {"rsp/logprob_gap_mean": value, "rsp/logprob_gap_max": 2 * value}


OPTIONS = GuardOptions(max_mean_gap=0.1, steps=3)


@pytest.mark.parametrize("gap", [0.0, 4e-7, 0.0999, 0.1])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_small_gaps_pass(gap: float, step: int, caplog: pytest.LogCaptureFixture) -> None:
    check_gap(_gap(gap), OPTIONS, step)
    assert not caplog.records


@pytest.mark.parametrize("gap", [0.1001, 0.26, math.inf, NAN])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_large_gaps_stop_the_first_steps(gap: float, step: int) -> None:
    with pytest.raises(PolicyMismatchError):
        check_gap(_gap(gap), OPTIONS, step)


@pytest.mark.parametrize("gap", [0.1001, 0.26, math.inf, NAN])
def test_large_gaps_later_are_a_warning(gap: float, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_gap(_gap(gap), OPTIONS, 4)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "max_mean_gap=0.1" in caplog.text


def test_zero_steps_never_stop(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):  # whatever an import made of the root's
        check_gap(_gap(1.0), GuardOptions(steps=0), 1)
    assert len(caplog.records) == 1


def test_message_names_gap_bound_and_causes() -> None:
    with pytest.raises(PolicyMismatchError) as caught:
        check_gap(_gap(0.1534), OPTIONS, 1)
    message = str(caught.value)
    for part in (
        "0.153 nats",
        "rsp.guard.max_mean_gap=0.1",
        "does not inject the soft prompt",
        "actor_rollout_ref.model.external_lib",
        "other weights",
        "temperature",
        "rsp/truncation_gap_mean",
        "dtype",
        "vocabulary",
    ):
        assert part in message


def test_a_forgotten_soft_prompt_is_told_from_rounding() -> None:
    """The sizes that were measured: fp32 noise 4e-7, bf16 noise 6e-3, forgotten H 0.15."""
    generator = torch.Generator().manual_seed(0)
    rollout = -torch.rand(64, 40, generator=generator) * 3
    for size, stops in ((4e-7, False), (6e-3, False), (0.15, True)):
        noise = torch.randn(rollout.shape, generator=generator) * size * math.sqrt(math.pi / 2)
        samples = StepSamples(
            rollout_log_probs=rollout,
            actor_log_probs=rollout + noise,
            response_mask=torch.ones(64, 40),
            rewards=torch.zeros(64),
            soft_prompt_lengths=torch.full((64,), 20),
        )
        metrics = step_metrics(samples)
        # A mean of 2560 draws of one seed, whose log-probs of up to 3 are rounded.
        few = chance(size, 2560) + rounding(1, size=3)
        assert metrics["rsp/logprob_gap_mean"] == pytest.approx(size, abs=few)
        if stops:
            with pytest.raises(PolicyMismatchError):
                check_gap(metrics, GuardOptions(), 1)
        else:
            check_gap(metrics, GuardOptions(), 1)


def compared(actor: list[float], forgotten: list[float]) -> dict[str, float]:
    """Of one rollout whose log-probs were -1, and another without a soft prompt."""
    rows = torch.tensor([actor, [-1.0] * len(actor)])
    return step_metrics(
        StepSamples(
            rollout_log_probs=torch.full(rows.shape, -1.0),
            actor_log_probs=rows,
            response_mask=torch.ones(rows.shape),
            rewards=torch.zeros(2),
            soft_prompt_lengths=torch.tensor([4, 0]),
            forgotten=torch.tensor([forgotten, [-9.0] * len(actor)]),
        )
    )


def test_what_forgetting_soft_prompts_would_make() -> None:
    """Of rollouts with one alone, where it is known."""
    metrics = compared([-1.1, -1.0, -0.7], [-2.0, float("nan"), -0.7])
    assert metrics["rsp/compared"] == 2
    assert metrics["rsp/compared_gap_mean"] == pytest.approx(0.2, abs=ROUNDING)
    assert metrics["rsp/forgotten_gap_mean"] == pytest.approx(0.65, abs=ROUNDING)
    # Differences of 0.9 and 0: Student's t is 1 with one degree of freedom.
    assert metrics["rsp/nearer"] == pytest.approx(math.log(2) ** 0.5 * 9 / 11, abs=1e-5)
    assert metrics["rsp/moved"] == 0.5
    check_soft_prompts(metrics, GuardOptions(), 1)
    assert "rsp/moved" not in compared([-1.0], [float("nan")])


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30, 300])
def test_few_tokens_of_overlooked_soft_prompts_stop_no_more_runs_than_many(count: int) -> None:
    """As one-token answers in bf16: the differences are rounding, on either side of 0.

    A normal number is beyond 3 deviations in one of 741; 3 standard errors of two are in 1 of 7.
    """
    generator = torch.Generator().manual_seed(count)
    steps = torch.randn(1000, count, generator=generator) * 0.01 - 1.5
    nearer = [compared([-1.5] * count, step)["rsp/nearer"] for step in steps.tolist()]
    assert sum(found <= -3 for found in nearer) <= 8  # 1.35 expected; more in one of 30 thousand


SURE = [0.0, -1e-7, -2e-6, 0.0]


def test_tokens_that_a_model_is_sure_of_move_for_no_soft_prompt() -> None:
    """As most of a trained model's answers are: float32 has no log-probs but 0 near 0."""
    metrics = compared([*SURE, -1.0001], [*SURE, -1.7])
    assert metrics["rsp/compared"] == 1
    assert metrics["rsp/moved"] == 1.0
    check_soft_prompts(metrics, GuardOptions(), 1)
    # Sure with its soft prompt alone: that is what it does.
    assert compared([*SURE, 0.0], [*SURE, -0.5])["rsp/compared"] == 1
    with pytest.raises(PolicyMismatchError, match="which move 0% of the log-probs"):
        check_soft_prompts(compared([*SURE, -1.3], [*SURE, -1.3]), GuardOptions(), 1)


@pytest.mark.parametrize("forgotten", [SURE, [float("nan")] * 4], ids=["sure", "none asked"])
def test_soft_prompts_of_which_nothing_is_shown_are_named(
    forgotten: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = compared(SURE, forgotten)
    assert metrics["rsp/compared"] == 0
    check_soft_prompts(metrics, GuardOptions(), 1)
    assert "tells whether the actor has its soft prompt" in caplog.text
    caplog.clear()
    check_soft_prompts(metrics | {"rsp/rollouts": 0.0}, GuardOptions(), 1)
    assert not caplog.text


@pytest.mark.parametrize(
    ("actor", "forgotten", "outcome"),
    [
        ([-1.04] * 8, [-1.12] * 8, "right"),  # bf16 on a GPU
        ([-1.04] * 8, [-1.04] * 8, "stops"),  # the same forward twice
        ([-1.2, -0.7] * 4, [-1.01, -1.02] * 4, "stops"),  # another's soft prompt
        ([-1.0401, -0.96] * 4, [-1.0402, -0.95] * 4, "told"),  # overlooked
        ([-1.0, -1.0, -1.0, -1.2], [-1.0, -1.0, -1.0, -1.9], "stops"),  # of most tokens not there
    ],
)
def test_rollouts_are_nearer_to_the_actor_with_soft_prompts(
    actor: list[float], forgotten: list[float], outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = compared(actor, forgotten)
    if outcome == "stops":
        with pytest.raises(PolicyMismatchError, match="does not inject the soft prompt"):
            check_soft_prompts(metrics, GuardOptions(), 1)
        check_soft_prompts(metrics, GuardOptions(steps=0), 1)
    else:
        check_soft_prompts(metrics, GuardOptions(), 1)
    assert ("too little to tell" in caplog.text) == (outcome == "told")
    check_soft_prompts({}, GuardOptions(), 1)


#: Of the tokens of `_samples`: of the actor's own policy, an update older, two.
AGES = torch.tensor([[2, 1, 0, 9], [0, 9, 9, 9], [1, 1, 9, 9]])


def test_gaps_are_of_the_actors_own_tokens() -> None:
    metrics = step_metrics(_samples(ages=AGES))
    assert metrics["rsp/logprob_gap_mean"] == pytest.approx(0.3 / 2, abs=ROUNDING)
    assert metrics["rsp/logprob_gap_max"] == pytest.approx(0.3, abs=ROUNDING)
    assert metrics["rsp/stale_gap_mean"] == pytest.approx(0.9 / 4, abs=ROUNDING)
    assert metrics["rsp/stale_tokens"] == pytest.approx(4 / 6)
    assert metrics["rsp/age_mean"] == pytest.approx(5 / 6)
    assert metrics["rsp/age_max"] == 2
    assert metrics["rsp/mixed_rollouts"] == pytest.approx(1 / 3)
    assert metrics["rsp/off/logprob_gap_mean"] == 0
    assert metrics["rsp/on/response_length_mean"] == 2.5  # of all tokens
    assert rollout_gaps(_samples(ages=AGES))[2] is None
    assert has_own_tokens(metrics)


def test_a_policy_without_older_ones_is_compared_whole() -> None:
    metrics = step_metrics(_samples(ages=torch.zeros_like(AGES)))
    assert metrics.pop("rsp/stale_tokens") == metrics.pop("rsp/mixed_rollouts") == 0
    assert metrics.pop("rsp/age_mean") == metrics.pop("rsp/age_max") == 0
    assert metrics == step_metrics(_samples())


def test_tokens_of_older_policies_alone_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Neither that the actor is right nor that it is wrong, however far it is."""
    far = _samples(ages=torch.ones_like(AGES), actor_log_probs=torch.full((3, 4), -9.0))
    metrics = step_metrics(far)
    assert math.isnan(metrics["rsp/logprob_gap_mean"])
    assert metrics["rsp/stale_gap_mean"] > 1
    assert "rsp/on/logprob_gap_mean" not in metrics
    assert not has_own_tokens(metrics)
    with caplog.at_level(logging.WARNING):
        check_gap(metrics, GuardOptions(steps=2, max_mean_gap=0.05), 1)
    assert "all tokens of this step are of older policies" in caplog.text


def test_a_broken_gap_of_own_tokens_stops_beside_older_ones() -> None:
    broken = _samples().actor_log_probs.clone()
    broken[0, 2] = NAN
    metrics = step_metrics(_samples(ages=AGES, actor_log_probs=broken))
    with pytest.raises(PolicyMismatchError):
        check_gap(metrics, GuardOptions(steps=2, max_mean_gap=0.05), 1)


def test_a_step_that_was_asked_for_forgetting_tells_of_it() -> None:
    """A few tokens of the actor's own are enough for the gap, and maybe none is compared."""
    forgotten = _samples().actor_log_probs - 1
    old_first = torch.tensor([[1, 1, 1, 9], [0, 9, 9, 9], [1, 1, 9, 9]])  # the own one has none
    metrics = step_metrics(_samples(ages=old_first, forgotten=forgotten))
    assert has_own_tokens(metrics)
    assert not tells_of_forgetting(metrics)
    assert tells_of_forgetting(step_metrics(_samples(ages=AGES, forgotten=forgotten)))
    assert tells_of_forgetting(step_metrics(_samples(forgotten=torch.full((3, 4), NAN))))
