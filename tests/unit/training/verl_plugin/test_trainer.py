"""What the trainer adds to a step's metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from rsp_rl.dials.options import RspOptions
from rsp_rl.dials.schedule import Schedule
from rsp_rl.training.truncation import Truncation
from rsp_rl.training.verl_plugin.trainer import draw_metrics, measured_truncation

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
