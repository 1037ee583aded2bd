"""A training step's rollouts for readers: a row a rollout of `N.rollouts.jsonl`.

verl's own `N.jsonl` has prompt, output, gold and reward; this is what it leaves out: what the
reward said of the answer, tokens, gap, and where in the prompt's text the soft prompt stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from rsp_rl.training.guard import StepSamples, rollout_gaps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Characters kept of a text that a reward function gave: an answer that it found, mostly.
_LONGEST = 1_000


def rollout_facts(
    uids: Sequence[str], samples: StepSamples, rewards: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What is told of each rollout.

    Args:
        uids: Of the rollouts, in their order.
        samples: The step's.
        rewards: What the reward said of each.

    Returns:
        By uid `tokens`, those that the policy sampled; `gap_mean` and `gap_max` in nats, of
        `rollout_gaps`, None where there is none; and `reward_info`.
    """
    tokens = samples.response_mask.bool().sum(dim=1).tolist()
    facts = {}
    for uid, count, gaps, said in zip(uids, tokens, rollout_gaps(samples), rewards, strict=True):
        mean, largest = gaps or (None, None)
        info = {str(name): _plain(value) for name, value in said.items()}
        facts[uid] = {"tokens": count, "gap_mean": mean, "gap_max": largest, "reward_info": info}
    return facts


def _plain(value: Any) -> int | float | str | None:
    """A value of a reward function as JSON has it."""
    if hasattr(value, "item") and not value.shape:  # numpy's, or a tensor
        value = value.item()
    if value is None or isinstance(value, int | float):
        return value
    return str(value)[:_LONGEST]


def characters_before(
    places: Mapping[str, tuple[int, int]],
    prompts: Callable[[Sequence[str]], Sequence[torch.Tensor]],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, int | None]:
    """How many characters of each prompt, as `N.jsonl` has it, stand before its soft prompt.

    Args:
        places: Start and length of rollouts' soft prompts by uid; rollouts of one group have one
            prompt where these are equal.
        prompts: Token ids of rollouts' prompts, placeholders included, by their uids.
        tokenizer: That verl decodes with.

    Returns:
        By uid; None where the text before it is no beginning of the whole one.
    """
    of_group: dict[tuple[str, int, int], list[str]] = {}
    for uid, place in places.items():
        of_group.setdefault((uid.rsplit("_", 2)[0], *place), []).append(uid)
    found: dict[str, int | None] = {}
    firsts = [uids[0] for uids in of_group.values()]
    for ((_, start, _), uids), ids in zip(of_group.items(), prompts(firsts), strict=True):
        whole = tokenizer.decode(ids, skip_special_tokens=True)
        before = tokenizer.decode(ids[:start], skip_special_tokens=True)
        found |= dict.fromkeys(uids, len(before) if whole.startswith(before) else None)
    return found
