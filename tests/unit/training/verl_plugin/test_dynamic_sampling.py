"""Dynamic sampling ends when it finds no group to train on; verl's own buffer, made-up rollouts."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from verl.trainer.ppo.v1 import replay_buffer

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.configs import compose_config
from rsp_rl.training.verl_plugin.dynamic_sampling import (
    NONE_USABLE,
    check_usable,
    give_up_in_time,
)

BATCH = 4


class Store:
    """TransferQueue, with rollouts that are there as soon as they are asked for.

    Args:
        accuracies: Of a group's rollouts, group after group; the last one comes again and again.
    """

    def __init__(self, accuracies: list[tuple[float, ...]]) -> None:
        self.accuracies = accuracies
        self.tags: dict[str, dict] = {}
        self.infos: dict[str, dict] = {}
        self.asked = 0

    def ask(self, count: int) -> None:
        for _ in range(count):
            group = self.accuracies[min(self.asked, len(self.accuracies) - 1)]
            uid = f"u{self.asked}"
            self.asked += 1
            self.tags[uid] = {"is_prompt": True, "status": "finished", "global_steps": 1}
            for number, accuracy in enumerate(group):
                key = f"{uid}_{number}_0"
                self.tags[key] = {"status": "finished"}
                self.infos[key] = {"reward_extra_info": {"acc": accuracy}}

    def kv_list(self) -> dict[str, dict]:
        return {"train": dict(self.tags)}

    def kv_batch_get(self, keys: list[str], **_: object) -> dict[str, list]:
        return {"extra_fields": [self.infos[key] for key in keys]}

    def kv_clear(self, keys: list[str], **_: object) -> None:
        for key in keys:
            self.tags.pop(key, None)


def sample(monkeypatch: pytest.MonkeyPatch, store: Store, most: int, steps: int = 1) -> Store:
    """Steps of a buffer as the trainer makes and bounds it."""
    monkeypatch.setattr(replay_buffer, "tq", store)
    buffer = replay_buffer.ReplayBuffer(
        trainer_mode="sync",
        trainer_config={},
        max_off_policy_threshold=None,
        max_off_policy_strategy="drop",
        sampler_kwargs={},
        poll_interval=0,
        refill_fn=store.ask,
        filter_groups_metric="acc",
        train_batch_size=BATCH,
        gen_batch_size=1,
    )
    give_up_in_time(buffer, most=most, batch=BATCH, metric="acc")
    for step in range(1, steps + 1):
        store.ask(BATCH)
        batch, _ = buffer.sample(step, "train", BATCH)
        assert len({key.split("_")[0] for key in batch.keys}) == BATCH
    return store


def test_no_usable_group_ends_the_step_within_a_few_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store([(1.0, 1.0), (0.0, 0.0), (0.0, 0.0)])
    message = r"none of 12 .*usable, of 4 needed; dropped: 11 \(92%\) all wrong \(acc=0\), 1 \(8%\)"
    with pytest.raises(ConfigError, match=message):
        sample(monkeypatch, store, most=10)
    assert store.asked == NONE_USABLE * BATCH


def test_too_few_usable_groups_end_the_step_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store([(0.0, 1.0), (1.0, 1.0)])
    with pytest.raises(ConfigError, match=r"only 1 of 24 .*max_num_gen_batches=5") as error:
        sample(monkeypatch, store, most=5)
    assert "23 (100%) all right (acc=1)" in str(error.value)
    assert store.asked <= 6 * BATCH


def test_a_step_that_fills_its_batch_goes_on_and_the_next_counts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store([(0.0, 0.0)] * 8 + [(0.0, 1.0)] * 100)
    sample(monkeypatch, store, most=3, steps=9)
    store = Store([(0.0, 1.0)] + [(0.0, 0.0)] * 60 + [(0.0, 1.0)])
    sample(monkeypatch, store, most=0, steps=2)


@pytest.mark.parametrize(
    ("dropped", "usable", "most", "ends"),
    [
        ({0.0: 11}, 0, 10, False),
        ({0.0: 12}, 0, 10, True),
        ({0.0: 12}, 0, 0, True),  # no limit is one while some are usable
        ({0.0: 4}, 0, 1, True),
        ({0.0: 39}, 1, 10, False),
        ({0.0: 40}, 1, 10, True),
        ({0.0: 4000}, 1, 0, False),
        ({0.0: 40}, BATCH, 10, False),
        ({}, 0, 10, False),
    ],
)
def test_when_it_ends(dropped: dict, usable: int, most: int, ends: bool) -> None:
    def check() -> None:
        check_usable(Counter(dropped), usable, most=most, batch=BATCH, metric="acc")

    if ends:
        with pytest.raises(ConfigError):
            check()
    else:
        check()


def test_values_beside_right_and_wrong_are_named() -> None:
    with pytest.raises(ConfigError, match=r"12 \(100%\) all alike \(score=0\.25\)"):
        check_usable({0.25: 12}, 0, most=10, batch=BATCH, metric="score")


def test_the_trainer_bounds_its_buffer_by_verls_option(monkeypatch: pytest.MonkeyPatch) -> None:
    from rsp_rl.training.verl_plugin import trainer as module

    def no_parts(self: object, config: object) -> None:
        assert config.algorithm.filter_groups.max_num_gen_batches == 0  # verl would not know it
        self.config = config
        self.replay_buffer = SimpleNamespace(poll_interval=None)

    bounds: list[dict] = []
    monkeypatch.setattr(module.PPOTrainerSync, "__init__", no_parts)
    monkeypatch.setattr(module, "give_up_in_time", lambda _, **bound: bounds.append(bound))
    for enable in ("false", "true"):
        module.SoftPromptTrainer(
            compose_config("tiny_cpu", [f"algorithm.filter_groups.enable={enable}"])
        )
    assert bounds == [{"most": 10, "batch": 16, "metric": "acc"}]
