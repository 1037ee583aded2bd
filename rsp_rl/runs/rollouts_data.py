"""What the page of rollouts holds: every step in numbers, and as many rollouts as a page can bear.

A step of a large run has thousands of rollouts of up to 16,000 tokens. All are counted. Those that
are shown are whole groups, since what a group teaches lies in the differences between its rollouts:
the one with the step's largest gap, then in turn groups of which some, none and all rollouts are
right. Among equals their uids decide, which are random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

from rsp_rl.display.thoughts import shown_thoughts
from rsp_rl.display.viewer import both_ends, pack
from rsp_rl.runs.metrics import GAP_MAX, GAP_MEAN
from rsp_rl.runs.rollouts import Rollout, StepRollouts

PAGE_BYTES = 16_000_000
"""Rollouts in the page, compressed and in base64."""
STEPS = 400
"""Steps that have rollouts in the page."""
OF_GROUP = 16
"""Rollouts shown of a group."""
_QUESTION = 160
"""Characters of a prompt in the list."""
_REWARD_MAX, _REWARD_MIN = "critic/score/max", "critic/score/min"

Number = float | str | None
"""A number, in words where it is not finite."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of the run beside its samples.

    Attributes:
        metrics: Logged numbers by step.
        limit: Most tokens of a response; None if it is not known, or forced tokens count too.
        token_text: Text of a token; None if there is no tokenizer.
    """

    metrics: Mapping[int, Mapping[str, float]]
    limit: int | None = None
    token_text: Callable[[int], str] | None = None

    @cached_property
    def best_reward(self) -> float | None:
        """The largest reward of the run, None if all are the same or none was logged."""
        most = [data[_REWARD_MAX] for data in self.metrics.values() if _REWARD_MAX in data]
        least = [data[_REWARD_MIN] for data in self.metrics.values() if _REWARD_MIN in data]
        if not most or not least or not max(most) > min(least):
            return None
        return max(most)


@dataclass(frozen=True)
class ShownStep:
    """A step on the page.

    Attributes:
        entry: Its numbers, and its groups in the list.
        outputs: Packed groups by key.
    """

    entry: dict[str, Any]
    outputs: dict[str, str]


def spread(steps: Sequence[int], most: int = STEPS) -> list[int]:
    """Steps that have rollouts on the page: all, or evenly spread ones from first to last."""
    if len(steps) <= most:
        return list(steps)
    places = (round(number * (len(steps) - 1) / (most - 1)) for number in range(most))
    return [steps[place] for place in places]


def shown_step(step: StepRollouts, facts: RunFacts, output_bytes: int) -> ShownStep:
    """A step's numbers over all of its rollouts, and those that are shown.

    Args:
        step: The step.
        facts: Of the run.
        output_bytes: Bound on its packed groups together; with 0 it is counted alone.
    """
    best, groups = facts.best_reward, step.groups
    outputs: dict[str, str] = {}
    listed: list[dict[str, Any]] = []
    for uid in _order(groups, best) if output_bytes else ():
        group = groups[uid]
        # The first one is shown in any case, if need be a part of it.
        for most in (OF_GROUP,) if outputs else (OF_GROUP, 4, 1):
            chosen = _chosen(group, best, most)
            packed = pack(_group(step, chosen, facts))
            if fits := len(packed) <= output_bytes:
                break
        if not fits:
            break
        output_bytes -= len(packed)
        key = f"{step.step}-{len(listed)}"
        outputs[key] = packed
        listed.append(
            {"outputs": key, "shown": len(chosen), **_numbers(group, best), **_asked(step, chosen)}
        )
    _shorten(listed)
    logged = facts.metrics.get(step.step, {})
    every = step.rollouts
    entry = {
        "step": step.step,
        **_numbers(every, best),
        "groups": len(groups),
        **_kinds(groups.values(), best),
        "by_reward": 0 if best is None else sum(rollout.told is None for rollout in every),
        "shown": sum(group["shown"] for group in listed),
        "shown_groups": len(listed),
        "padding": step.padding,
        "cut_short": step.cut_short,
        "logged": bool(logged),
        "gap_mean": _number(logged.get(GAP_MEAN)),
        "gap_max": _number(logged.get(GAP_MAX)),
        "list": listed,
    }
    return ShownStep(entry, outputs)


def _numbers(rollouts: Sequence[Rollout], best: float | None) -> dict[str, Any]:
    """Of a step or a group: counts by verdict, means, and what is largest."""
    verdicts = [rollout.right(best) for rollout in rollouts]
    tokens = [rollout.tokens for rollout in rollouts if rollout.tokens is not None]
    gaps = [rollout.gap_max for rollout in rollouts if rollout.gap_max is not None]
    characters = [rollout.characters for rollout in rollouts]
    return {
        "rollouts": len(rollouts),
        "right": verdicts.count(True),
        "wrong": verdicts.count(False),
        "reward": _mean([rollout.reward for rollout in rollouts]),
        "tokens": _mean(tokens) if len(tokens) == len(rollouts) else None,
        "tokens_max": max(tokens) if tokens and len(tokens) == len(rollouts) else None,
        "characters": _mean(characters),
        "characters_max": max(characters, default=None),
        "largest_gap": _number(max(gaps, default=None)),
    }


def _mean(values: Sequence[float]) -> Number:
    # A sum knows what infinite rewards of both signs are, `fmean` does not.
    return _number(sum(values) / len(values)) if values else None


def _number(value: float | None) -> Number:
    return value if value is None or math.isfinite(value) else str(value)


def _kind(group: Sequence[Rollout], best: float | None) -> str:
    verdicts = {rollout.right(best) for rollout in group}
    if len(verdicts) > 1:
        return "mixed"
    return {True: "all_right", False: "all_wrong", None: "unknown"}[verdicts.pop()]


def _kinds(groups: Iterable[Sequence[Rollout]], best: float | None) -> dict[str, int]:
    kinds = [_kind(group, best) for group in groups]
    return {kind: kinds.count(kind) for kind in ("mixed", "all_wrong", "all_right")}


def _order(groups: Mapping[str, Sequence[Rollout]], best: float | None) -> Iterator[str]:
    """Groups in the order in which they get a place on the page."""
    of_kind: dict[str, list[str]] = {"mixed": [], "all_wrong": [], "all_right": [], "unknown": []}
    for uid in sorted(groups):
        of_kind[_kind(groups[uid], best)].append(uid)
    in_turn = [uid for turn in zip_longest(*of_kind.values()) for uid in turn if uid is not None]
    gaps = {uid: max(_gap(rollout) for rollout in group) for uid, group in groups.items()}
    if gaps and (largest := max(gaps, key=gaps.__getitem__)) and gaps[largest] > 0:
        in_turn.remove(largest)
        in_turn.insert(0, largest)
    yield from in_turn


def _gap(rollout: Rollout) -> float:
    return rollout.gap_max or 0.0


def _chosen(group: Sequence[Rollout], best: float | None, most: int) -> list[Rollout]:
    """Of a large group that with the largest gap, then right and others in turn, by number."""
    ordered = sorted(group, key=lambda rollout: (rollout.number, rollout.output))
    if len(ordered) <= most:
        return ordered
    largest = max(ordered, key=_gap)
    rest = [rollout for rollout in ordered if rollout is not largest]
    right = [rollout for rollout in rest if rollout.right(best)]
    others = [rollout for rollout in rest if not rollout.right(best)]
    in_turn = (one for pair in zip_longest(right, others) for one in pair if one is not None)
    chosen = [largest, *in_turn][:most]
    return sorted(chosen, key=ordered.index)


def _asked(step: StepRollouts, chosen: Sequence[Rollout]) -> dict[str, str]:
    """A group's prompt and gold for the list."""
    first = step.texts(chosen[:1])[chosen[0].uid]
    return {"question": str(first["input"]), "gold": str(first.get("gts"))[:_QUESTION]}


def _shorten(listed: Sequence[dict[str, Any]]) -> None:
    """Cut prompts to a line of the list, in place: from where they begin to differ."""
    prompts = [group["question"] for group in listed]
    begin = 0
    if len(set(prompts)) > 1:
        pairs = enumerate(zip(min(prompts), max(prompts), strict=False))
        same = next((place for place, (one, other) in pairs if one != other), 0)
        begin = max(prompts[0].rfind(blank, 0, same) for blank in " \n") + 1  # whole words
    for group in listed:
        group["question"] = group["question"][begin:][:_QUESTION]


def _group(step: StepRollouts, chosen: Sequence[Rollout], facts: RunFacts) -> dict[str, Any]:
    """What is shown of a group."""
    texts = step.texts(chosen)
    thoughts = step.thoughts(chosen)
    prompts: dict[tuple[Any, ...], list[str]] = {}
    for rollout in chosen:
        text = str(texts[rollout.uid]["input"])
        place = (text, rollout.length, rollout.start, rollout.before, rollout.added)
        prompts.setdefault(place, []).append(_name(rollout))
    return {
        "gold": both_ends(str(texts[chosen[0].uid].get("gts"))),
        "prompts": [
            _prompt(*place) | {"of": names, "all": len(prompts) == 1}
            for place, names in prompts.items()
        ],
        "rollouts": [
            _shown(rollout, str(texts[rollout.uid]["output"]), thoughts.get(rollout.uid), facts)
            for rollout in chosen
        ],
    }


def _prompt(
    text: str, length: int | None, start: int | None, before: int | None, added: bool
) -> dict[str, Any]:
    """A prompt on either side of its soft prompt; in one piece where none is, or is placed."""
    placed = bool(length) and before is not None
    cut = before if placed else len(text)
    return {
        "before": both_ends(text[:cut]),
        "after": both_ends(text[cut:]),
        "length": length,
        "start": start,
        "placed": placed,
        "added": added,
    }


def _name(rollout: Rollout) -> str:
    return f"{rollout.number}" + (f".{rollout.output}" if rollout.output else "")


def _shown(
    rollout: Rollout, output: str, thoughts: Mapping[str, Any] | None, facts: RunFacts
) -> dict[str, Any]:
    """What is shown of a rollout."""
    info = dict(rollout.reward_info)
    marks = {
        "at the limit of tokens": None not in (rollout.tokens, facts.limit)
        and rollout.tokens >= facts.limit,
        "no answer": bool(info.get("no_answer")),
        "timed out": bool(info.get("timeouts")),
        "crashed": bool(info.get("crashes")),
        "unparsable": bool(info.get("unparsable")),
    }
    return {
        "name": _name(rollout),
        "right": rollout.right(facts.best_reward),
        "reward": _number(rollout.reward),
        "extracted": _text(info.get("pred")),
        "extraction_step": _text(info.get("extraction_step")),
        "stage": _text(info.get("stage")),
        "tokens": rollout.tokens,
        "characters": rollout.characters,
        "gap_mean": _number(rollout.gap_mean),
        "gap_max": _number(rollout.gap_max),
        "marks": [mark for mark, holds in marks.items() if holds],
        "output": both_ends(output),
        "thoughts": _thoughts(thoughts, facts.token_text),
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _thoughts(
    row: Mapping[str, Any] | None, text: Callable[[int], str] | None
) -> dict[str, Any] | int | None:
    """Thoughts, or how many they were where the step's file has no room for them."""
    if row is None:
        return None
    if "at" not in row:
        return row["thoughts"]
    return dict(shown_thoughts(row["law"], row, text or "#{}".format))
