"""What the trainer asks the actor of thoughts, and does with what comes back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rsp_rl.basics.errors import PolicyMismatchError
from rsp_rl.dials.options import GuardOptions, RspOptions
from rsp_rl.thoughts.record import KIND_FIELD
from rsp_rl.thoughts.rows import Kind
from rsp_rl.training.configs import compose_config
from rsp_rl.training.thought_options import ThoughtOptions
from rsp_rl.training.verl_plugin import trainer as module
from rsp_rl.training.verl_plugin.thought_replay import FORGOTTEN_FIELD, FORGOTTEN_KEY, GAP_FIELD
from rsp_rl.training.verl_plugin.trainer import SoftPromptTrainer
from tests.tolerances import rounding


def nested(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def fields(gaps: list[float]) -> dict[str, torch.Tensor]:
    """Of two rollouts, a prompt of two tokens each; verl has a number one before its token."""
    nan = torch.nan
    mix, token = int(Kind.MIX), int(Kind.TOKEN)
    return {
        "rollout_log_probs": nested([-1.0, -1, -1], [-1.0, -1]),
        "old_log_probs": nested([-1.0, -1, -1], [-1.0, -1]),
        "response_mask": nested([1, 1, 1], [1, 1]),
        "rm_scores": nested([0.0, 0, 1], [0.0, 0]),
        KIND_FIELD: nested([mix, mix, token], [mix, token]),
        GAP_FIELD: nested([0, *gaps, 0, 0], [0, 0.0, 0, 0]),
        FORGOTTEN_FIELD: nested([nan, nan, 0.04, nan, nan], [nan] * 4),
    }


def first_steps(monkeypatch, law: str, gaps: list[float], steps: int = 1, guard: int = 3):
    """The trainer's own part of so many steps: what verl was asked, and the last metrics."""
    asked: list[dict] = []

    def compute(self, batch, metrics):
        asked.append(dict(batch.extra_info))
        return batch

    def kv_batch_get(keys, select_fields, **_):
        made = {name: fields(gaps)[name] for name in select_fields if name != "extra_fields"}
        return made | {"extra_fields": SimpleNamespace(tolist=lambda: [{}, {}])}

    monkeypatch.setattr(module.PPOTrainerSync, "_compute_old_log_prob", compute)
    monkeypatch.setattr(module.tq, "kv_batch_get", kv_batch_get)
    config = compose_config("dapo", [f"law={law}"])
    made = SoftPromptTrainer.__new__(SoftPromptTrainer)
    made.config, made.global_steps, made._steps_since_start = config, 1, 0
    made._truncation, made._enter = None, lambda phase: None
    made._rollouts_lost = lambda batch: 0
    made._options = RspOptions(length=0, guard=GuardOptions(steps=guard))
    made._law = ThoughtOptions.from_config(config.law)
    for _ in range(steps):
        batch = SimpleNamespace(
            keys=["a_0_0", "b_0_0"], tags=[{}, {}], partition_id="train", extra_info={}
        )
        metrics: dict[str, float] = {}
        made._compute_old_log_prob(batch, metrics)
        assert batch.extra_info == {}  # the update has no use for them
    return asked, metrics


def test_the_first_step_asks_what_forgetting_would_make(monkeypatch) -> None:
    asked, metrics = first_steps(monkeypatch, "gumbel", [0.0, 1e-6])
    assert asked[0][FORGOTTEN_KEY] is True
    assert metrics["rsp/law/compared"] == 1
    assert metrics["rsp/law/compared_gap_mean"] == pytest.approx(1e-6)
    assert metrics["rsp/law/forgotten_gap_mean"] == pytest.approx(0.04, abs=rounding(2))
    with pytest.raises(PolicyMismatchError, match="in the place of thoughts"):
        first_steps(monkeypatch, "gumbel", [0.0, 0.04])


@pytest.mark.parametrize(
    ("law", "steps", "guard"), [("gumbel", 2, 3), ("gumbel", 1, 0), ("token", 1, 3)]
)
def test_others_do_not(monkeypatch, law: str, steps: int, guard: int) -> None:
    """A forward costs time: later steps, an unguarded run, and a law whose thoughts are tokens."""
    asked, metrics = first_steps(monkeypatch, law, [0.0, 1e-6], steps, guard)
    assert FORGOTTEN_KEY not in asked[-1]
    assert "rsp/law/compared" not in metrics
