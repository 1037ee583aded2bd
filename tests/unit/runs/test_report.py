"""A run's summary and picture: numbers of what was there, and none of what was not."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from rsp_rl.basics.files import write_json
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.metrics import GAP_MAX, GAP_MEAN, REWARD, STEP_SECONDS
from rsp_rl.runs.report import held_out_how, plot, summarize

HELD_OUT = "val-core/arithmetic/acc/mean@1"
TRAINED = {GAP_MEAN: 1e-6, GAP_MAX: 1e-5, STEP_SECONDS: 2.0, REWARD: 0.5}


@pytest.mark.parametrize(
    ("accuracies", "before", "after"),
    [
        ({}, None, None),
        ({0: 0.4}, 0.4, None),  # which the trained model was not asked for
        ({2: 0.5}, None, 0.5),
        ({0: 0.4, 1: 0.6, 2: 0.5}, 0.4, 0.5),
    ],
)
def test_accuracy_after_training_is_a_trained_models(
    accuracies: dict[int, float], before: float | None, after: float | None
) -> None:
    steps: dict[int, dict[str, float]] = {0: {}, 1: dict(TRAINED), 2: dict(TRAINED)}
    for step, accuracy in accuracies.items():
        steps[step][HELD_OUT] = accuracy
    summary = summarize(steps, {"length": 8}, 1.0)
    assert (summary["accuracy_before"], summary["accuracy_after"]) == (before, after)


@pytest.mark.parametrize(
    ("rewards", "least", "most"),
    [
        ([0.2, 0.9], 0.0, 1.03),
        ([50.0, 100.0], 0.0, 103.0),
        ([-1.0, 0.5], -1.03, 1.03),
        ([0.5, math.inf], 0.0, 1.03),
        ([math.nan, -math.inf], 0.0, 1.03),
    ],
)
def test_the_picture_shows_every_finite_reward(
    rewards: list[float], least: float, most: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {step: TRAINED | {REWARD: reward} for step, reward in enumerate(rewards, start=1)}
    monkeypatch.setattr(plt, "close", lambda figure: None)
    plot(steps, tmp_path / "training.png", "greedy")
    assert plt.gcf().axes[1].get_title() == "Held-out accuracy, greedy"
    assert plt.gcf().axes[0].get_ylim() == pytest.approx((least, most))
    monkeypatch.undo()
    plt.close("all")


@pytest.mark.parametrize(
    ("config", "settings", "law", "said"),
    [
        ("{temperature: 0, top_k: -1}", {"length": 8}, None, "greedy, without RSP"),
        ("{temperature: 1.0, top_k: -1}", {"length": 8}, None, "sampled, without RSP"),
        ("{temperature: 1.0, top_k: 1}", {"length": 8}, None, "greedy, without RSP"),
        ("{temperature: 0}", {"length": 8, "validation": True}, None, "greedy, with RSP"),
        ("{temperature: 0}", {"length": 0, "validation": True}, None, "greedy, without RSP"),
        (
            "{temperature: 0}",
            {"length": 0, "law": "question_noise", "scale": 5, "validation": True},
            None,
            "greedy, with noise on the question",
        ),
        ("{}", {"length": 0, "law": "question_noise"}, None, "without noise on the question"),
        ("{}", {"length": 0, "law": "gone"}, None, "without RSP"),
        (
            "{}",
            {"length": 0, "law": "gone", "validation": True},
            None,
            "with what the law gone may have added",
        ),
        ("{}", {"length": 0}, {"name": "soft", "validation": False}, "without RSP"),
        ("{}", {"length": 0}, {"name": "soft", "validation": True}, "without RSP, law soft"),
        ("{temperature: '${oc.env:RSP_RL_NO_SUCH}'}", {"length": 8}, None, "without RSP"),
    ],
)
def test_the_picture_says_how_held_out_problems_were_asked(
    config: str, settings: dict, law: dict | None, said: str, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(
        f"actor_rollout_ref: {{rollout: {{val_kwargs: {config}}}}}\n"
    )
    write_json(folder.settings, settings)
    if law is not None:
        write_json(folder.law, law)
    assert held_out_how(folder) == said
