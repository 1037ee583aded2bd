"""What a step's rollouts are told to readers with: numbers, rewards, the soft prompt's place."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from rsp_rl.training.guard import StepSamples, StepThoughts, rollout_gaps, step_metrics
from rsp_rl.training.verl_plugin.rollout_dump import characters_before, rollout_facts


def samples(thoughts: StepThoughts | None = None) -> StepSamples:
    return StepSamples(
        rollout_log_probs=torch.tensor([[-1.0, -1, -1], [-1, -2, -9], [-1, -1, -1]]),
        actor_log_probs=torch.tensor([[-1.5, -1, -1], [-1, -1, -1], [-1, -1, -1]]),
        response_mask=torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0]]),
        rewards=torch.zeros(3),
        soft_prompt_lengths=torch.zeros(3, dtype=torch.int64),
        thoughts=thoughts,
    )


def test_gaps_of_rollouts_are_those_of_the_step() -> None:
    gaps = rollout_gaps(samples())
    assert gaps == [(0.25, 0.5), (0.5, 1.0), None]
    assert step_metrics(samples())["rsp/logprob_gap_max"] == 1.0
    assert step_metrics(samples())["rsp/logprob_gap_mean"] == pytest.approx(0.375)


def test_gaps_are_over_what_a_step_takes_of_thoughts() -> None:
    """Of several draws a part each; of dense laws not the thoughts, whose gaps are no nats."""
    mask = torch.tensor([[False, True, False], [False, True, False], [False] * 3])
    assert rollout_gaps(samples(StepThoughts(mask, draws=4)))[1] == (0.125, 0.25)
    dense = StepThoughts(mask, gaps=torch.full((3, 3), 7.0), flips=torch.zeros(3, 3))
    assert rollout_gaps(samples(dense)) == [(0.5, 0.5), (0.0, 0.0), None]


def test_a_gap_that_is_no_number_counts_as_infinite() -> None:
    made = samples()
    made.actor_log_probs[1, 0] = float("nan")
    assert rollout_gaps(made)[1] == (float("inf"), float("inf"))


def test_what_a_reward_may_say() -> None:
    """Numbers of any library, and texts that are not without end."""
    said = {"acc": np.float64(1.0), "n": torch.tensor(3), "ok": True, "none": None}
    said |= {"pred": "7" * 5000, "list": [1, 2], "array": np.zeros(2)}
    facts = rollout_facts(["a", "b", "c"], samples(), [said, {}, {}])
    assert [fact["tokens"] for fact in facts.values()] == [2, 2, 0]
    assert facts["c"]["gap_mean"] is None
    info = json.loads(json.dumps(facts["a"]["reward_info"]))
    assert info == {
        **{"acc": 1.0, "n": 3, "ok": True, "none": None},
        **{"pred": "7" * 1000, "list": "[1, 2]", "array": "[0. 0.]"},
    }


class Letters:
    """A tokenizer of letters; number 0 is special, and a text that begins with b loses it."""

    def __init__(self, loses: bool = False) -> None:
        self._loses = loses

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        text = "".join("_abcdef"[number] for number in ids if number)
        return text[1:] if self._loses and len(text) == 2 else text


def before(
    places: dict[str, tuple[int, int]], tokenizer: Letters
) -> tuple[dict[str, int | None], list[Sequence[str]]]:
    asked: list[Sequence[str]] = []

    def prompts(uids: Sequence[str]) -> list[torch.Tensor]:
        asked.append(uids)
        return [torch.tensor([1, 2, *[0] * places[uid][1], 3]) for uid in uids]

    return characters_before(places, prompts, tokenizer), asked


def test_the_place_is_found_once_a_prompt() -> None:
    """Rollouts of a group whose soft prompts differ in length have prompts of their own."""
    places = {"g_0_0": (2, 3), "g_1_0": (2, 3), "g_2_0": (2, 5), "h_0_0": (2, 3)}
    found, asked = before(places, Letters())
    assert found == dict.fromkeys(places, 2)
    assert asked == [["g_0_0", "g_2_0", "h_0_0"]]
    assert before({}, Letters()) == ({}, [[]])


def test_a_place_that_the_text_does_not_have_is_none() -> None:
    """Some tokenizers decode a beginning to another text than the whole begins with."""
    assert before({"g_0_0": (2, 3)}, Letters(loses=True))[0] == {"g_0_0": None}


def test_a_real_tokenizer(tmp_path) -> None:
    from rsp_rl.models.folder import load_tokenizer
    from rsp_rl.placement.chat import place_in_chat
    from rsp_rl.tiny import make_tiny_model

    tokenizer = load_tokenizer(make_tiny_model(tmp_path / "tiny", steps=0, threads=1))
    for position, left in (("prefix", 0), ("suffix", None)):
        messages = [{"role": "user", "content": "Compute 1+2."}]
        placed = place_in_chat(tokenizer, messages, 4, position)
        ids = torch.tensor(placed.token_ids)
        found = characters_before(
            {"g_0_0": (placed.start, 4)}, lambda _, ids=ids: [ids], tokenizer
        )["g_0_0"]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert text[:found] == text[:left] if left is not None else text[:found].endswith("1+2.")
