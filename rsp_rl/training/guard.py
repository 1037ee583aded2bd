"""The guard: rollout and actor must mean the same policy.

The worst bug of this method is silent. When the actor forgets H, old and new log-probs forget it
alike: verl's ppo_kl and clip fraction are exactly 0, and only the gap between the rollout's
log-probs and the actor's shows it.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch

from rsp_rl.basics.errors import PolicyMismatchError
from rsp_rl.dials.options import GuardOptions
from rsp_rl.training.thought_options import ThoughtGuard

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepThoughts:
    """Which of a step's positions are thoughts, and what the actor makes of them.

    Attributes:
        mask: bool [B, T].
        draws: K, of which a position's log-prob is the sum.
        gaps: float [B, T], `InputLaw.gap`; None for laws whose log-probs say it.
        flips: float [B, T], 1 where the likeliest token is another; None but for dense laws, whose
            gaps are relative errors and not nats.
        forgotten: float [B, T], what `gaps` would be, or the actor's log-prob, if the actor had
            tokens in the place of thoughts; NaN where it is not known. None if it was not asked.
    """

    mask: torch.Tensor
    draws: int = 1
    gaps: torch.Tensor | None = None
    flips: torch.Tensor | None = None
    forgotten: torch.Tensor | None = None


@dataclass(frozen=True)
class StepSamples:
    """One step's samples without verl's synthetic padding, right-padded to [B, T].

    Attributes:
        rollout_log_probs: float [B, T], the rollout engine's log-probs of the sampled tokens.
        actor_log_probs: float [B, T], the actor's, recomputed before the update.
        response_mask: [B, T], 1 on tokens that the policy sampled.
        rewards: float [B], sequence rewards.
        soft_prompt_lengths: int [B], L of each sample; 0 where it has no soft prompt.
        log_mass: float [B, T], log of the probability that truncated sampling kept (see
            `rsp_rl.training.truncation`); None for sampling from the whole policy.
        renormalized: Whether the rollout's log-probs are those of the truncated distribution.
        thoughts: See `StepThoughts`; None for a run without a law.
        forgotten: float [B, T], the actor's log-probs if it had no soft prompts; NaN where they are
            not known. None if it was not asked.
        ages: int [B, T], updates between a token's policy and the actor's; None if all tokens are
            of the actor's own.
    """

    rollout_log_probs: torch.Tensor
    actor_log_probs: torch.Tensor
    response_mask: torch.Tensor
    rewards: torch.Tensor
    soft_prompt_lengths: torch.Tensor
    log_mass: torch.Tensor | None = None
    renormalized: bool = False
    thoughts: StepThoughts | None = None
    forgotten: torch.Tensor | None = None
    ages: torch.Tensor | None = None

    @property
    def comparable(self) -> torch.Tensor:
        """Tokens whose log-probs rollout and actor must agree on, bool [B, T]: of one policy."""
        mask = self.response_mask.bool()
        return mask if self.ages is None else mask & (self.ages == 0)


#: Log-prob from which an actor is sure of a token: what is left is of the size of float32's
#: rounding of logits, and moves for no input.
_SURE = -1e-4


def step_metrics(samples: StepSamples) -> dict[str, float]:
    """What a step logs: the log-prob gap, and what differs between rollouts with and without RSP.

    The gap is that of one policy computed twice. What truncated sampling makes is not in it: it is
    a number of its own, and is taken off log-probs that are renormalised over the kept tokens.
    A thought's gap is that of the tokens it is made of; of dense laws thoughts have none.

    Returns:
        `rsp/logprob_gap_mean` and `_max` in nats, over response tokens; `rsp/rollouts`;
        `rsp/{on,off}/logprob_gap_mean`, `reward_mean` and `response_length_mean` for the kinds that
        occur; `rsp/truncation_gap_mean` and `_max` where sampling is truncated: log-prob under the
        truncated distribution minus log-prob under the whole policy; with a law
        `rsp/law/thoughts_mean`, `rsp/law/gap_mean` of thoughts alone, or of dense laws
        `rsp/law/relative_error_mean` and `rsp/law/flips`; where it was asked what forgetting them
        would make, `rsp/law/compared` thoughts, of these `rsp/law/compared_gap_mean` and
        `rsp/law/forgotten_gap_mean`, `rsp/law/nearer`: by how many standard errors the former is
        the smaller (of few numbers, the normal number as unlikely as their Student's t), and
        `rsp/law/moved`: the share of which they are not the same number. The same without `law/` of
        forgotten soft prompts, over tokens that the actor is not sure of. Where tokens may be of
        older policies, `_age_metrics`; gaps are of the actor's own alone, NaN if there is none.

    Raises:
        PolicyMismatchError: If there is nothing to compare, and no older policy is the reason.
    """
    mask = samples.response_mask.bool()
    if not mask.any():
        raise PolicyMismatchError(
            "no response token in any sample of this step: the rollout engine returned nothing, or "
            "the response mask is lost; look at the run's samples and at vLLM's log"
        )
    thoughts, every, comparable = samples.thoughts, mask, samples.comparable
    rollout_log_probs, log_mass, gap, mask = _gaps(samples)
    has_soft_prompt = samples.soft_prompt_lengths > 0
    nothing = 0.0 if comparable.any() else math.nan
    metrics = {
        "rsp/logprob_gap_mean": _worst(gap[mask].mean()) if mask.any() else nothing,
        "rsp/logprob_gap_max": _worst(gap[mask].max()) if mask.any() else nothing,
        "rsp/rollouts": float(has_soft_prompt.sum()),
    }
    if samples.ages is not None:
        metrics |= _age_metrics(gap, samples.ages, every, thoughts)
    if thoughts is not None:
        metrics["rsp/law/thoughts_mean"] = (thoughts.mask & every).sum(dim=1).float().mean().item()
        metrics |= _law_metrics(gap, thoughts, comparable)
        metrics |= _forgotten_metrics(rollout_log_probs, gap, thoughts, comparable)
    if samples.forgotten is not None:
        own = mask & (samples.soft_prompt_lengths > 0)[:, None] & ~samples.forgotten.isnan()
        if thoughts is not None:
            own &= ~thoughts.mask
        own &= torch.minimum(samples.actor_log_probs, samples.forgotten) <= _SURE
        would = (rollout_log_probs - samples.forgotten).abs()
        metrics |= _comparison("rsp", would[own], gap[own])
    if log_mass is not None and mask.any():
        truncation_gap = -log_mass[mask]
        metrics["rsp/truncation_gap_mean"] = truncation_gap.mean().item()
        metrics["rsp/truncation_gap_max"] = truncation_gap.max().item()
    lengths = every.sum(dim=1).float()
    for name, chosen in (("on", has_soft_prompt), ("off", ~has_soft_prompt)):
        if not chosen.any():
            continue
        if mask[chosen].any():
            metrics[f"rsp/{name}/logprob_gap_mean"] = _worst(gap[chosen][mask[chosen]].mean())
        metrics[f"rsp/{name}/reward_mean"] = samples.rewards[chosen].mean().item()
        metrics[f"rsp/{name}/response_length_mean"] = lengths[chosen].mean().item()
    return metrics


def rollout_gaps(samples: StepSamples) -> list[tuple[float, float] | None]:
    """Mean and largest gap of each rollout, of the positions that `step_metrics` takes.

    Returns:
        In nats; None of a rollout without such a position.
    """
    *_, gap, mask = _gaps(samples)
    gap = gap.masked_fill_(~mask, 0.0)
    counts = mask.sum(dim=1)
    # NaN counts as infinite, as in `_worst`.
    means, most = (
        values.nan_to_num(nan=math.inf, posinf=math.inf).tolist()
        for values in (gap.sum(dim=1) / counts.clamp(min=1), gap.amax(dim=1))
    )
    return [
        (mean, largest) if count else None
        for mean, largest, count in zip(means, most, counts.tolist(), strict=True)
    ]


def _gaps(
    samples: StepSamples,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Log-probs of the rollout and of what it kept, gaps, and where these are nats, [B, T] each."""
    mask = samples.comparable
    rollout_log_probs, log_mass, thoughts = (
        samples.rollout_log_probs,
        samples.log_mass,
        samples.thoughts,
    )
    if log_mass is not None and thoughts is not None:  # which no top-k of the sampler has touched
        log_mass = log_mass.masked_fill(thoughts.mask, 0.0)
    if log_mass is not None and samples.renormalized:
        rollout_log_probs = rollout_log_probs + log_mass
    gap = (rollout_log_probs - samples.actor_log_probs).abs()
    if thoughts is not None:
        if thoughts.gaps is None:
            gap = torch.where(thoughts.mask, gap / thoughts.draws, gap)
        elif thoughts.flips is None:
            gap = torch.where(thoughts.mask, thoughts.gaps, gap)
        else:
            mask = mask & ~thoughts.mask
    return rollout_log_probs, log_mass, gap, mask


def _age_metrics(
    gap: torch.Tensor, ages: torch.Tensor, mask: torch.Tensor, thoughts: StepThoughts | None
) -> dict[str, float]:
    """Of tokens that an older policy than the actor's may have made.

    Returns:
        `rsp/age_mean` and `rsp/age_max` in updates, over response tokens; `rsp/stale_tokens`, the
        share that is of an older policy, and `rsp/stale_gap_mean` in nats over these, but for
        thoughts: how far that policy is from the actor's; `rsp/mixed_rollouts`, the share of
        rollouts with tokens of several policies.
    """
    own_N, stale = ages[mask], mask & (ages > 0)
    least_B = ages.masked_fill(~mask, torch.iinfo(ages.dtype).max).amin(dim=1)
    mixed_B = mask.any(dim=1) & (ages.masked_fill(~mask, -1).amax(dim=1) > least_B)
    metrics = {
        "rsp/age_mean": own_N.double().mean().item(),
        "rsp/age_max": float(own_N.max()),
        "rsp/stale_tokens": stale.sum().item() / len(own_N),
        "rsp/mixed_rollouts": mixed_B.double().mean().item(),
    }
    tokens = stale if thoughts is None else stale & ~thoughts.mask
    if tokens.any():
        metrics["rsp/stale_gap_mean"] = _worst(gap[tokens].mean())
    return metrics


def _law_metrics(gap: torch.Tensor, thoughts: StepThoughts, mask: torch.Tensor) -> dict[str, float]:
    own = thoughts.mask & mask
    if not own.any():
        return {}
    if thoughts.flips is None:
        return {"rsp/law/gap_mean": _worst(gap[own].mean())}
    assert thoughts.gaps is not None
    return {
        "rsp/law/relative_error_mean": _worst(thoughts.gaps[own].mean()),
        "rsp/law/flips": _worst(thoughts.flips[own].mean()),
    }


def _forgotten_metrics(
    rollout_log_probs: torch.Tensor, gap: torch.Tensor, thoughts: StepThoughts, mask: torch.Tensor
) -> dict[str, float]:
    if thoughts.forgotten is None:
        return {}
    own = thoughts.mask & mask & ~thoughts.forgotten.isnan()
    if thoughts.gaps is None:
        would = (rollout_log_probs - thoughts.forgotten).abs() / thoughts.draws
        found = gap
    else:
        would, found = thoughts.forgotten, thoughts.gaps
    # A mixture of which one token was kept is what it is whatever stands before it.
    own &= (would != 0) | (found != 0)
    return _comparison("rsp/law", would[own], found[own])


def _comparison(name: str, would_N: torch.Tensor, found_N: torch.Tensor) -> dict[str, float]:
    """Gaps of an actor that forgets, and of the one there is."""
    metrics = {f"{name}/compared": float(len(found_N))}
    if not len(found_N):
        return metrics
    more_N = (would_N - found_N).double()
    return metrics | {
        f"{name}/compared_gap_mean": _worst(found_N.mean()),
        f"{name}/forgotten_gap_mean": would_N.mean().item(),
        f"{name}/nearer": _deviates(more_N),
        f"{name}/moved": (more_N != 0).double().mean().item(),
    }


def _deviates(more_N: torch.Tensor) -> float:
    """How far a mean is from 0 for its error, as a number of N(0, 1): Student's t (Wallace 1959).

    Two numbers may well be close together by chance, and their standard error small.
    """
    freedom = len(more_N) - 1
    # Of an actor that forgets, all are 0: nothing over nothing.
    if not freedom or not (error := more_N.std().item() / math.sqrt(len(more_N))):
        return 0.0
    t = more_N.mean().item() / error
    size = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return math.copysign(size, t)


def _worst(gap: torch.Tensor) -> float:
    """A gap as a number; NaN counts as infinite, lest it hide behind a comparison that it fails."""
    return float("inf") if gap.isnan() else gap.item()


def has_own_tokens(metrics: dict[str, float]) -> bool:
    """Whether a step of `step_metrics` has tokens of the policy that it updates."""
    return metrics.get("rsp/stale_tokens", 0.0) < 1


def tells_of_forgetting(metrics: dict[str, float]) -> bool:
    """Whether a step that was asked what forgetting would make has something to say of it.

    One without older policies always counts as having: what it has is all that will come.
    """
    if not metrics.get("rsp/stale_tokens"):
        return True
    return any(metrics.get(f"rsp/{of}compared", 0.0) > 0 for of in ("", "law/"))


def check_gap(metrics: dict[str, float], options: GuardOptions, steps_since_start: int) -> None:
    """Stop a run whose rollout and actor are different policies.

    Args:
        metrics: What `step_metrics` returned.
        options: Bound and number of guarded steps.
        steps_since_start: 1 for the first step of this process.

    Raises:
        PolicyMismatchError: If the mean gap exceeds the bound in the first steps; later, when
            weights are worth keeping, it is logged as a warning.
    """
    if not has_own_tokens(metrics):
        logger.warning(
            "all tokens of this step are of older policies than the actor's, and nothing says "
            "whether rollout and actor agree: the next step with newer ones is guarded instead"
        )
        return
    # Of either kind: a few rollouts with a forgotten soft prompt must not hide among many without.
    gaps = {kind: metrics.get(f"rsp/{kind}/logprob_gap_mean", 0.0) for kind in ("on", "off")}
    of_thoughts = metrics.get("rsp/law/gap_mean", 0.0)
    gap = max(metrics["rsp/logprob_gap_mean"], of_thoughts, *gaps.values())
    if gap <= options.max_mean_gap:
        return
    message = (
        f"mean |log p_rollout - log p_actor| is {gap:.3g} nats over this step's response tokens "
        f"(rollouts with soft prompts: {gaps['on']:.3g}, without: {gaps['off']:.3g}"
        f"{f'; thoughts: {of_thoughts:.3g}' if of_thoughts else ''}), "
        f"above rsp.guard.max_mean_gap={options.max_mean_gap:g}: rollout and actor are different "
        "policies. Likely causes: the actor does not inject the soft prompt or the thoughts (is "
        "actor_rollout_ref.model.external_lib=rsp_rl.training.verl_plugin.components set, and no "
        "other engine registered?); the rollout runs other weights (weight sync, or a checkpoint "
        "or LoRA adapter that only one side loaded); another temperature or logprobs_mode; a "
        "rollout dtype far from the actor's; a vocabulary larger than the tokenizer, which verl "
        "masks in vLLM only. Truncated sampling (top_k, top_p) is not among them: what it makes "
        "is rsp/truncation_gap_mean. Raise the bound only if you know the cause."
    )
    _stop_or_say(message, options, steps_since_start)


def check_thoughts(
    metrics: dict[str, float], bounds: ThoughtGuard, options: GuardOptions, steps_since_start: int
) -> None:
    """Stop a run whose rollout and actor make other means of the same thoughts (dense laws).

    Args:
        metrics: What `step_metrics` returned.
        bounds: On them.
        options: Number of guarded steps.
        steps_since_start: See `check_gap`.

    Raises:
        PolicyMismatchError: As `check_gap`.
    """
    for name, bound, value in (
        ("rsp/law/relative_error_mean", "max_relative_error", bounds.max_relative_error),
        ("rsp/law/flips", "max_flips", bounds.max_flips),
    ):
        if metrics.get(name, 0.0) <= value:
            continue
        message = (
            f"{name} is {metrics[name]:.3g}, above law.guard.{bound}={value:g}: rollout and actor "
            "make other thoughts of the same positions. Likely causes: the actor has tokens where "
            "the rollout had thoughts (another engine registered?); other weights on one side; a "
            "rollout dtype far from the actor's, with ties among the largest logits. Raise the "
            "bound only if you know the cause."
        )
        _stop_or_say(message, options, steps_since_start)


#: Of what forgetting would make, a gap that shows that the actor has its thoughts; and, where
#: rounding is of that size, how many standard errors it must be smaller by.
_SMALLER, _STANDARD_ERRORS = 0.5, 3.0

#: Share of positions that soft prompts or thoughts must move. Rounding alone leaves next to none
#: where they were; the same forward twice, as of an actor that has neither, moves none but by
#: kernels' own disorder.
_MOVED = 0.5


def check_not_forgotten(
    metrics: dict[str, float], options: GuardOptions, steps_since_start: int
) -> None:
    """Stop a run whose rollout is no nearer to its actor than to one with tokens for thoughts.

    Mixtures that are nearly tokens make so little that no bound of a gap tells it from rounding;
    an actor that does both on the same samples does. Thoughts that make no more than rounding, as
    NEFTune's noise in bf16, show nothing where they are few, which is said: an actor without them
    moves nothing, and one with others is farther away.

    Args:
        metrics: What `step_metrics` returned.
        options: Number of guarded steps.
        steps_since_start: See `check_gap`.

    Raises:
        PolicyMismatchError: As `check_gap`.
    """
    if "rsp/law/compared" not in metrics:
        return
    if not metrics["rsp/law/thoughts_mean"]:
        logger.warning(
            "no rollout of this step had a thought, and it trains on ordinary tokens: does the "
            "text of law.begin come at all?"
        )
        return
    if not metrics["rsp/law/compared"]:
        logger.warning(
            "no thought of this step's first micro-batches tells whether the actor has it: those "
            "before it are as good as their tokens"
        )
        return
    gap, would = metrics["rsp/law/compared_gap_mean"], metrics["rsp/law/forgotten_gap_mean"]
    if gap <= _SMALLER * would or metrics["rsp/law/nearer"] >= _STANDARD_ERRORS:
        return
    if metrics["rsp/law/moved"] >= _MOVED and metrics["rsp/law/nearer"] > -_STANDARD_ERRORS:
        logger.warning(
            "of %.0f thoughts the gap between rollout and actor is %.3g, and %.3g if the actor has "
            "tokens in the place of thoughts: too little to tell the one actor from the other. "
            "Rounding is as large as what these thoughts make, or they are few",
            *(metrics["rsp/law/compared"], gap, would),
        )
        return
    message = (
        f"of {metrics['rsp/law/compared']:.0f} thoughts the gap between rollout and actor is "
        f"{gap:.3g} (relative errors of dense laws, else nats), and {would:.3g} if the actor has "
        "tokens in the place of thoughts: the rollout is no nearer to the one than to the other. "
        "Likely causes: the actor replays tokens, or other samples' thoughts (another engine "
        "registered, its embedding hook removed?); or rounding is as large as what thoughts make, "
        "then a rollout dtype nearer to the actor's helps. rsp.guard.steps=0 goes on without."
    )
    _stop_or_say(message, options, steps_since_start)


def check_soft_prompts(
    metrics: dict[str, float], options: GuardOptions, steps_since_start: int
) -> None:
    """Stop a run whose rollout is nearer to an actor without soft prompts than to its own.

    A model may overlook its soft prompts, and rounding be larger than what they make: then nothing
    is shown, which is said.

    Args:
        metrics: What `step_metrics` returned.
        options: Number of guarded steps.
        steps_since_start: See `check_gap`.

    Raises:
        PolicyMismatchError: As `check_gap`.
    """
    if "rsp/compared" not in metrics or not metrics["rsp/rollouts"]:
        return
    if not metrics["rsp/compared"]:
        logger.warning(
            "no token of this step's first micro-batches tells whether the actor has its soft "
            "prompts: their rollouts have none, or the model is sure of all of their tokens, or "
            "older policies made them"
        )
        return
    gap, would = metrics["rsp/compared_gap_mean"], metrics["rsp/forgotten_gap_mean"]
    nearer, moved = metrics["rsp/nearer"], metrics["rsp/moved"]
    if moved >= _MOVED and (gap <= _SMALLER * would or nearer >= _STANDARD_ERRORS):
        return
    sizes = (
        f"over {metrics['rsp/compared']:.0f} tokens the gap between rollout and actor is {gap:.3g} "
        f"nats, and {would:.3g} without the soft prompts, which move {moved:.0%} of the log-probs"
    )
    if moved >= _MOVED and nearer > -_STANDARD_ERRORS:
        logger.warning(
            "%s: too little to tell the one actor from the other. The model overlooks its soft "
            "prompts, or rounding is as large as what they make",
            sizes,
        )
        return
    message = (
        f"{sizes}: the actor does not inject the soft prompt, or another one than the rollout had. "
        "Likely causes: another engine registered, its embedding hook removed, records of other "
        "samples. rsp.guard.steps=0 goes on without."
    )
    _stop_or_say(message, options, steps_since_start)


def _stop_or_say(message: str, options: GuardOptions, steps_since_start: int) -> None:
    """Of the first steps an error; later, when weights are worth keeping, a warning."""
    if steps_since_start <= options.steps:
        raise PolicyMismatchError(message)
    logger.warning(message)
