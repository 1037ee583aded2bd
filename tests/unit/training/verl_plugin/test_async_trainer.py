"""The asynchronous trainer: groups that fail, and what a checkpoint has trained on already."""

from __future__ import annotations

from collections import Counter

import pytest
from verl.trainer.ppo.v1 import replay_buffer
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync

from rsp_rl.basics.errors import RunBrokenError
from rsp_rl.training.verl_plugin import async_trainer as module
from rsp_rl.training.verl_plugin.async_trainer import (
    MOST_FAILED,
    AsyncSoftPromptTrainer,
    give_up_on_failures,
)
from rsp_rl.training.verl_plugin.trainer import CheckingTrainer

BATCH = 2


class Store:
    """TransferQueue with prompts that are done at once, failed ones among them."""

    def __init__(self, *fails: bool) -> None:
        self.fails, self.asked = fails, 0
        self.tags: dict[str, dict] = {}

    def ask(self, count: int) -> None:
        for _ in range(count):
            failed = self.fails[self.asked % len(self.fails)]
            uid = f"u{self.asked}"
            self.asked += 1
            tag = {"is_prompt": True, "status": "failure" if failed else "finished"}
            self.tags[uid] = {**tag, "global_steps": 1}
            self.tags[f"{uid}_0_0"] = {"status": "success"}

    def kv_list(self, *_: object) -> dict[str, dict]:
        return {"train": dict(self.tags)}

    def kv_clear(self, keys: list[str], **_: object) -> None:
        for key in keys:
            self.tags.pop(key, None)


def sampled(monkeypatch: pytest.MonkeyPatch, store: Store) -> Counter[str]:
    """Of a step: the prompts that it trains on."""
    monkeypatch.setattr(replay_buffer, "tq", store)
    buffer = replay_buffer.ReplayBufferAsync(
        trainer_mode="colocate_async",
        trainer_config={},
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs={},
        poll_interval=0,
        refill_fn=store.ask,
    )
    give_up_on_failures(buffer, BATCH)
    store.ask(BATCH)
    batch, metrics = buffer.sample(1, "train", BATCH)
    return Counter({"trained": len(batch.keys)}) + Counter(
        lost=int(metrics.get("training/rollout_failure/evicted_samples", 0))
    )


def test_failed_groups_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(True, False, True)
    assert sampled(monkeypatch, store) == {"trained": BATCH, "lost": store.asked - BATCH}


def test_groups_that_all_fail_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(True)
    with pytest.raises(RunBrokenError, match=r"6 groups of this step failed and none was usable"):
        sampled(monkeypatch, store)
    assert store.asked == (MOST_FAILED + 1) * BATCH - BATCH


def test_what_was_trained_on_is_not_carried_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl saves before it clears the step's batch: samples whose prompts are gone."""
    store = Store(False)
    store.ask(2)
    del store.tags["u0"]
    store.tags["u9"] = {"is_prompt": True, "status": "running"}
    monkeypatch.setattr(module, "tq", store)
    monkeypatch.setattr(CheckingTrainer, "_load_checkpoint", lambda _: None)
    AsyncSoftPromptTrainer.__new__(AsyncSoftPromptTrainer)._load_checkpoint()
    assert sorted(store.tags) == ["u1", "u1_0_0", "u9"]


def test_it_is_verls_and_registered() -> None:
    assert get_trainer_cls("rsp_async") is AsyncSoftPromptTrainer
    order = AsyncSoftPromptTrainer.__mro__
    assert order.index(CheckingTrainer) < order.index(PPOTrainerColocateAsync)
