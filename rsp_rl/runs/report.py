"""A finished run as a summary, a table and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display on a cluster

import matplotlib.pyplot as plt

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.metrics import (
    GAP_MAX,
    GAP_MEAN,
    RESPONSE_LENGTH,
    REWARD,
    STEP_SECONDS,
    held_out_accuracy,
    largest,
)
from rsp_rl.runs.trained_with import adds_noise, unknown_law

Steps = dict[int, dict[str, float]]


def validation_accuracy(steps: Steps) -> dict[int, float]:
    """Held-out accuracy by step, of the steps that have one."""
    by_step = {step: held_out_accuracy(data) for step, data in steps.items()}
    return {step: accuracy for step, accuracy in by_step.items() if accuracy is not None}


def summarize(steps: Steps, rsp: Mapping[str, Any], wall_seconds: float) -> dict[str, Any]:
    """The run in the numbers of `summary.json`.

    Args:
        steps: Logged metrics.
        rsp: Its RSP settings; of noise on the question, which has no L, law and alpha are told.
        wall_seconds: All its starts together.

    Raises:
        RunFolderError: If no training step was logged.
    """
    trained = {step: data for step, data in steps.items() if GAP_MEAN in data}
    if not trained:
        raise RunFolderError("the metrics hold no training step; did training start?")
    accuracy = validation_accuracy(steps)
    after = [accuracy[step] for step in sorted(accuracy) if step > 0]
    return {
        "steps": max(trained),
        "accuracy_before": accuracy.get(0),
        "accuracy_after": after[-1] if after else None,
        "logprob_gap_mean": largest(trained.values(), GAP_MEAN),
        "logprob_gap_max": largest(trained.values(), GAP_MAX),
        "seconds_per_step": statistics.median(data[STEP_SECONDS] for data in trained.values()),
        "wall_seconds": wall_seconds,
        "rsp_length": rsp["length"],
        **({"rsp_law": rsp["law"], "rsp_scale": rsp["scale"]} if adds_noise(rsp) else {}),
    }


def table(steps: Steps, summary: dict[str, Any]) -> str:
    """Held-out accuracy, reward, response length and gap by evaluated step, for a terminal."""
    accuracy = validation_accuracy(steps)
    lines = [f"{'step':>5} {'held-out':>9} {'reward':>7} {'tokens':>7} {'gap (nats)':>11}"]
    for step in sorted({*accuracy, max(steps)}):
        data = steps[step]
        cells = [
            _cell(accuracy.get(step), "9.3f"),
            _cell(data.get(REWARD), "7.3f"),
            _cell(data.get(RESPONSE_LENGTH), "7.1f"),
            _cell(data.get(GAP_MEAN), "11.2e"),
        ]
        lines.append(f"{step:>5} " + " ".join(cells))
    lines.append("")
    lines += [f"{name:<18} {value}" for name, value in summary.items()]
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    width = int(form.split(".")[0])
    return " " * (width - 1) + "-" if value is None else format(value, form)


def held_out_how(folder: RunFolder) -> str:
    """How a run asked its held-out problems, as far as that is on record."""
    settings, law = folder.read_settings(), folder.read_law() or {}
    ways = "actor_rollout_ref.rollout.val_kwargs"
    temperature, top_k = (folder.known_setting(f"{ways}.{n}") for n in ("temperature", "top_k"))
    greedy = temperature == 0 or top_k == 1
    parts = [] if temperature is None else ["greedy" if greedy else "sampled"]
    noise = adds_noise(settings)
    asked = (settings["length"] or noise) and settings.get("validation")
    if (gone := unknown_law(settings)) and settings.get("validation"):
        parts.append(f"with what the law {gone} may have added")
    else:
        parts.append(f"with{'' if asked else 'out'} {'noise on the question' if noise else 'RSP'}")
    return ", ".join([*parts, *([f"law {law['name']}"] if law.get("validation") else [])])


def plot(steps: Steps, file: Path, asked: str) -> None:
    """Reward, held-out accuracy, response length and log-prob gap by step, as a PNG.

    Args:
        steps: Logged metrics.
        file: The picture.
        asked: How held-out problems were, of `held_out_how`.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), sharex=True, layout="constrained")
    series = {name: _series(steps, name) for name in _PANEL_METRICS}
    accuracy = validation_accuracy(steps)

    reward = axes[0, 0]
    reward.plot(*series[REWARD], color="tab:blue")
    # A recipe may pay 100 for a right answer, and -1 for a wrong one.
    rewards = [0.0, 1.0, *filter(math.isfinite, series[REWARD][1])]
    least, most = min(rewards), max(rewards)
    reward.set(title="Training reward", ylabel="mean reward", ylim=(1.03 * least, 1.03 * most))

    held_out = axes[0, 1]
    held_out.plot(list(accuracy), list(accuracy.values()), "o-", color="tab:green")
    for step, value in accuracy.items():
        # Below the point where the panel ends above it.
        offset = 7 if value < 0.9 else -15
        held_out.annotate(
            f"{value:.3f}", (step, value), (0, offset), textcoords="offset points", ha="center"
        )
    held_out.set(title=f"Held-out accuracy, {asked}", ylabel="accuracy", ylim=(0, 1.03))
    held_out.margins(x=0.06)

    length = axes[1, 0]
    length.plot(*series[RESPONSE_LENGTH], color="tab:purple")
    length.set(title="Response length", ylabel="tokens", xlabel="step", ylim=(0, None))

    gap = axes[1, 1]
    gap.plot(*series[GAP_MEAN], color="tab:red", label="mean")
    gap.plot(*series[GAP_MAX], color="tab:red", alpha=0.4, label="max")
    gap.set(title="|log p rollout - log p actor|", ylabel="nats", xlabel="step", yscale="log")
    gap.legend()
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=130)
    plt.close(figure)


_PANEL_METRICS = (
    REWARD,
    RESPONSE_LENGTH,
    GAP_MEAN,
    GAP_MAX,
)


def _series(steps: Steps, name: str) -> tuple[list[int], list[float]]:
    points = [(step, data[name]) for step, data in steps.items() if data.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def count_parameters(folder: Path) -> int:
    """Load a Hugging Face folder with transformers and count its parameters."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).num_parameters()
