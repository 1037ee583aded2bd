"""What a step's rollouts are told to readers with: numbers, rewards, the soft prompt's place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from verl.trainer.ppo.v1 import trainer_base

from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.record import RECORD_FIELD, SoftPromptRecord
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.rollouts import read_step, step_files
from rsp_rl.tiny import make_tiny_model
from rsp_rl.training.guard import StepSamples, StepThoughts, rollout_gaps, step_metrics
from rsp_rl.training.thought_options import ThoughtOptions
from rsp_rl.training.verl_plugin import trainer
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


def test_a_real_tokenizer(tmp_path: Path) -> None:
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


def test_files_of_a_step_are_of_the_same_rollouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl's own dump and ours, read back; the store of samples is made up, verl's code is not."""
    tokenizer = load_tokenizer(make_tiny_model(tmp_path / "tiny", steps=0, threads=1))
    placed = {
        f"{group}_{rollout}_0": place_in_chat(tokenizer, messages, 4, "suffix")
        for group, messages in (
            ("g", [{"role": "user", "content": "Compute 1+2."}]),
            ("h", [{"role": "user", "content": "Compute 1+2+3-4."}]),
        )
        for rollout in (0, 1)
    }
    padding = f"pad{'0a' * 16}_0_0"
    keys = [*reversed(placed), padding]

    def record(key: str) -> torch.Tensor:
        start = placed[key].start if key in placed else 0
        return SoftPromptRecord(7, start, 4, 0.0, 0.5, "float32", 1).to_tensor()

    def nested(values: list) -> torch.Tensor:
        return torch.nested.as_nested_tensor(
            [torch.tensor(value) for value in values], layout=torch.jagged
        )

    def kv_batch_get(keys: list[str], select_fields: list[str], **_: object) -> dict:
        answer = tokenizer.encode("\\boxed{3}", add_special_tokens=False)
        made = {
            "uid": np.array([key.rsplit("_", 2)[0] for key in keys]),
            "prompts": nested([placed[k].token_ids if k in placed else [1] for k in keys]),
            "responses": nested([answer for _ in keys]),
            "rm_scores": torch.tensor([[0.0, float("_0_" in key)] for key in keys]),
            "reward_model": np.array([{"ground_truth": "3"} for _ in keys], dtype=object),
            RECORD_FIELD: torch.stack([record(key) for key in keys]),
            "rsp_prompt_index": [0 for _ in keys],
            "session_id": [int(key.split("_")[1]) for key in keys],
        }
        return {name: made[name] for name in select_fields}

    for target in (trainer.tq, trainer_base.tq):
        monkeypatch.setattr(target, "kv_batch_get", kv_batch_get)
    made = object.__new__(trainer.SoftPromptTrainer)
    made._options, made._law = RspOptions(length=4, mean=0.0, std=0.5), ThoughtOptions()
    made.tokenizer, made.global_steps = tokenizer, 3
    real = [key for key in keys if key != padding]
    step = StepSamples(
        rollout_log_probs=torch.zeros(4, 3),
        actor_log_probs=torch.full((4, 3), 0.25),
        response_mask=torch.ones(4, 3),
        rewards=torch.zeros(4),
        soft_prompt_lengths=torch.full((4,), 4),
    )
    made._facts = rollout_facts(real, step, [{"acc": float("_0_" in key)} for key in real])
    made._init_dump_executor()
    batch = SimpleNamespace(
        keys=keys, tags=[{}, {}, {}, {}, {"is_padding": True}], partition_id="train"
    )
    run = RunFolder(tmp_path / "run")
    made._log_rollout_data(batch, {}, str(run.train_samples))
    made._shutdown_dump_executor()
    (found,) = (read_step(*item) for item in step_files(run.train_samples).items())
    assert ([one.uid for one in found.rollouts], found.padding) == (sorted(placed), 1)
    assert [one.right(None) for one in found.rollouts] == [True, False, True, False]
    for one in found.rollouts:
        assert (one.tokens, one.gap_mean, one.length) == (3, 0.25, 4)
        prompt = found.texts([one])[one.uid]["input"]
        assert prompt[: one.before].endswith(("Compute 1+2.", "Compute 1+2+3-4."))
        assert prompt[one.before :].strip() == "assistant"
