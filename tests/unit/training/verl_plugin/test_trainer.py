"""What the trainer adds to a step's metrics and to its dumped rollouts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from rsp_rl.dials.options import RspOptions
from rsp_rl.dials.schedule import Schedule
from rsp_rl.draws.record import RECORD_FIELD
from rsp_rl.training.thought_options import ThoughtOptions
from rsp_rl.training.truncation import Truncation
from rsp_rl.training.verl_plugin import trainer as module
from rsp_rl.training.verl_plugin.trainer import (
    SoftPromptTrainer,
    draw_metrics,
    measured_truncation,
    reward_metrics,
)

OPTIONS = RspOptions(
    length=8,
    mean=0.0,
    std=0.5,
    mixing="half",
    length_schedule=Schedule("linear", 4, 5),
    scale_schedule=Schedule("cosine", 3.0, 5),
)


def _records(options: RspOptions, step: int) -> list:
    return [
        options.record(
            step=step,
            prompt_index=0,
            rollout=rollout,
            group_start=0,
            start=3,
            dtype="float32",
            placeholder_id=1,
        )
        for rollout in range(8)
    ]


@pytest.mark.parametrize(("step", "length", "scale"), [(1, 8, 1.0), (3, 6, 2.0), (9, 4, 3.0)])
def test_where_the_dials_stand(step: int, length: int, scale: float) -> None:
    """Means over the half that has a soft prompt."""
    metrics = draw_metrics(_records(OPTIONS, step), OPTIONS)
    assert metrics == pytest.approx({"rsp/length_mean": length, "rsp/scale_mean": scale})


def test_no_dials_without_soft_prompts_and_no_scale_without_sigma() -> None:
    assert draw_metrics([], OPTIONS) == {}
    off = replace(OPTIONS, length=0, length_schedule=Schedule("linear", 4, 5))
    assert draw_metrics(_records(off, step=1), off) == {}
    noise = RspOptions(length=0, law="question_noise", scale=5)
    record = noise.record(
        **{"step": 1, "prompt_index": 0, "rollout": 0, "group_start": 0, "start": 3},
        **{"dtype": "float32", "placeholder_id": 1, "question": [4, 5, 6]},
    )
    assert draw_metrics([record], noise) == {"rsp/length_mean": 3, "rsp/scale_mean": 5}
    vocab = RspOptions(law="vocab", mean=0.0, std=0.5, table_digest="0" * 16)
    assert draw_metrics(_records(vocab, step=1), vocab) == {"rsp/length_mean": 20}


@pytest.mark.parametrize(
    ("top_k", "fused", "measured"),
    [(50, False, Truncation(50, 1.0)), (-1, False, None), (50, True, None)],
)
def test_truncation_is_measured_where_there_are_logits(
    top_k: int, fused: bool, measured: Truncation | None
) -> None:
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "rollout": {"top_k": top_k, "top_p": 1.0},
                "model": {"use_fused_kernels": fused},
            }
        }
    )
    assert measured_truncation(config) == measured


def test_records_are_dumped_although_verl_has_not_yet_made_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl dumps its samples in a thread of its own, and makes their folder there."""
    records = _records(OPTIONS, step=1)
    data = {
        RECORD_FIELD: torch.stack([record.to_tensor() for record in records]),
        "rsp_prompt_index": [0] * len(records),
        "session_id": list(range(len(records))),
        "prompts": torch.zeros(1, 12, dtype=torch.int64),
    }
    monkeypatch.setattr(module.PPOTrainerSync, "_log_rollout_data", lambda *_: None)
    monkeypatch.setattr(module.tq, "kv_batch_get", lambda **_: data)
    trainer = object.__new__(SoftPromptTrainer)
    trainer._options, trainer._law, trainer.global_steps = OPTIONS, ThoughtOptions(), 1
    trainer._facts, trainer.tokenizer = {}, SimpleNamespace(decode=lambda *_, **__: "")
    keys = [f"uid_{number}_0" for number in range(len(records))]
    batch = SimpleNamespace(keys=keys, tags=[{}] * len(keys), partition_id="train")
    folder = tmp_path / "samples" / "train"
    trainer._log_rollout_data(batch, {}, str(folder))
    rows = [json.loads(line) for line in (folder / "1.soft_prompts.jsonl").read_text().splitlines()]
    assert [row["rollout"] for row in rows] == list(range(len(records)))
    assert [row["seed"] for row in rows] == [record.seed for record in records]


def test_rollouts_that_verl_lost_are_counted() -> None:
    """Its synthetic padding is none of them, and a rollout may have several outputs."""
    trainer = object.__new__(SoftPromptTrainer)
    trainer.config = OmegaConf.create(
        {"data": {"train_batch_size": 2}, "actor_rollout_ref": {"rollout": {"n": 2}}}
    )
    keys = ["a_0_0", "a_0_1", "a_1_0", "b_0_0", "p_0_0"]
    tags = [{}, {}, {}, {}, {"is_padding": True}]
    assert trainer._rollouts_lost(SimpleNamespace(keys=keys, tags=tags)) == 1
    keys[4], tags[4] = "b_1_0", {}
    assert trainer._rollouts_lost(SimpleNamespace(keys=keys, tags=tags)) == 0


def test_sums_of_what_the_reward_counts() -> None:
    right, wrong = {"acc": 1.0, "pred": "4", "timeouts": 0.0}, {"acc": 0, "timeouts": 1}
    assert reward_metrics([right, wrong, right]) == {"reward/acc": 2.0, "reward/timeouts": 1.0}
    assert reward_metrics([{}, {}]) == {}


def test_a_sum_over_some_rows_says_over_how_many(caplog: pytest.LogCaptureFixture) -> None:
    """A reward function may return a mapping for some answers and a number for others."""
    metrics = reward_metrics([{"acc": 1.0, "timeouts": 1}, {"acc": 0.0}, {"acc": 1.0}, {}])
    assert metrics == {
        "reward/acc": 2.0,
        "reward/acc/rows": 3.0,
        "reward/timeouts": 1.0,
        "reward/timeouts/rows": 1.0,
    }
    assert "gave acc, timeouts for some rollouts" in caplog.text
