"""A run's evaluations over its steps: the paper's Table 13 as csv, markdown and plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.display.tables import markdown_head, markdown_row
from rsp_rl.evaluation.distinct import check_distinct
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.metrics import BenchmarkMetrics
from rsp_rl.evaluation.reading import read_manifest, read_metrics
from rsp_rl.evaluation.thoughts import thought_line

_NORMAL_95 = 1.96
_SCALARS = tuple(
    name
    for name in BenchmarkMetrics.__annotations__
    if name in BenchmarkMetrics.__required_keys__ - {"pass_at_k"}
)
#: By column, where a benchmark's numbers of thoughts have it; only of evaluations with a law.
_THOUGHTS = {
    f"{name}_{of}": (of, name)
    for of in ("all", "right")
    for name in ("tokens", "thoughts", "thinking_tokens", "answer_tokens")
}

PEAK_NOTE = (
    "The peak is the step with the highest headline. It is chosen on the very benchmarks that are "
    "reported, so it is an optimistic number: it also picks the luckiest step."
)


@dataclass(frozen=True)
class Headline:
    """Unweighted mean over the headline benchmarks, with its 95% interval."""

    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Metrics of every benchmark that is done, by step.

    Attributes:
        manifest: How the last step was evaluated (`how.json`).
        headline_benchmarks: Benchmarks of the headline.
        metrics: By step and benchmark; a benchmark that is not done at a step is not there.
        unlike_training: How a step's prompts differ from training's, by step; not there if not.
    """

    manifest: dict[str, Any]
    headline_benchmarks: tuple[str, ...]
    metrics: dict[int, dict[str, BenchmarkMetrics]]
    unlike_training: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """Benchmarks done at one step at least: those of the headline first, others by name."""
        found = {name for step in self.metrics.values() for name in step}
        in_headline = [name for name in self.headline_benchmarks if name in found]
        return (*in_headline, *sorted(found.difference(in_headline)))

    @cached_property
    def headline(self) -> dict[int, Headline]:
        """By step, only where every headline benchmark is done."""
        return {
            step: _headline([metrics[name] for name in self.headline_benchmarks])
            for step, metrics in self.metrics.items()
            if step not in self.missing
        }

    @cached_property
    def missing(self) -> dict[int, tuple[str, ...]]:
        """Headline benchmarks that are not done, by step; not there if all are done."""
        missing = {
            step: tuple(name for name in self.headline_benchmarks if name not in metrics)
            for step, metrics in self.metrics.items()
        }
        return {step: names for step, names in missing.items() if names}

    @cached_property
    def peak_step(self) -> int | None:
        """Step with the highest headline, the first of equals; `None` if no step has one."""
        return max(self.headline, key=lambda s: self.headline[s].accuracy, default=None)


def read_summary(folder: EvaluationFolder) -> Summary:
    """Read the metrics of all steps that have a finished benchmark.

    Raises:
        RunFolderError: If no benchmark is done at any step, a file is damaged, or the steps were
            not all evaluated in the same way, or two of them had the same weights.
    """
    metrics: dict[int, dict[str, BenchmarkMetrics]] = {}
    manifests: dict[int, dict[str, Any]] = {}
    for step, step_folder in folder.steps().items():
        if found := read_metrics(step_folder):  # else its evaluation has just begun
            manifests[step], metrics[step] = read_manifest(step_folder), found
    if not metrics:
        raise RunFolderError(f"{folder.root} holds no finished benchmark; run `rsp-rl eval` first")
    last = max(manifests)
    for step, manifest in manifests.items():
        if manifest["fingerprint"] != manifests[last]["fingerprint"]:
            raise RunFolderError(
                f"{folder.step(step).manifest} and {folder.step(last).manifest} differ in their "
                "fingerprint: these steps were not evaluated under the same protocol; evaluate one "
                "of them again, or move it away"
            )
    check_distinct(folder, manifests)
    unlike = {
        step: tuple(manifest["unlike_training"])
        for step, manifest in manifests.items()
        if manifest.get("unlike_training")
    }
    return Summary(manifests[last], tuple(manifests[last]["protocol"]["headline"]), metrics, unlike)


def _headline(metrics: list[BenchmarkMetrics]) -> Headline:
    """Mean with the normal interval: benchmarks are independent, so their variances add up."""
    accuracy = math.fsum(m["accuracy"] for m in metrics) / len(metrics)
    error = math.hypot(*(m["accuracy_standard_error"] for m in metrics)) / len(metrics)
    return Headline(accuracy, accuracy - _NORMAL_95 * error, accuracy + _NORMAL_95 * error)


def to_csv(summary: Summary) -> str:
    """One row a step and benchmark with all scalar metrics, pass@n, and a row `headline` a step."""
    text = io.StringIO()
    columns = ["step", "benchmark", *_SCALARS, "pass_at_n"]
    if any("thoughts" in row for step in summary.metrics.values() for row in step.values()):
        columns += ["law", *_THOUGHTS, "without_answer_rate", "forced_rate"]
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for step, metrics in summary.metrics.items():
        for name in summary.benchmarks:
            if row := metrics.get(name):
                pass_at_n = row["pass_at_k"][str(row["samples_per_problem"])]
                line = {"step": step, "benchmark": name, **row, "pass_at_n": pass_at_n}
                if thoughts := row.get("thoughts"):
                    line |= thoughts
                    line |= {key: thoughts[of][what] for key, (of, what) in _THOUGHTS.items()}
                writer.writerow(line)
        if headline := summary.headline.get(step):
            writer.writerow(
                {
                    "step": step,
                    "benchmark": "headline",
                    "accuracy": headline.accuracy,
                    "accuracy_low": headline.low,
                    "accuracy_high": headline.high,
                }
            )
    return text.getvalue()


def table_rows(summary: Summary) -> list[tuple[str, dict[int, float]]]:
    """Rows of the paper's Table 13: a label, and accuracy by step; the last is the headline."""
    rows = []
    for name in summary.benchmarks:
        done = {step: m[name] for step, m in summary.metrics.items() if name in m}
        n = max(metrics["samples_per_problem"] for metrics in done.values())
        label = name if n == 1 else f"{name} (avg@{n})"
        rows.append((label, {step: metrics["accuracy"] for step, metrics in done.items()}))
    headline = {step: headline.accuracy for step, headline in summary.headline.items()}
    return [*rows, (f"headline (mean of {len(summary.headline_benchmarks)})", headline)]


def notes(summary: Summary) -> list[str]:
    """What a reader of the table must know, a sentence or two each."""
    lines = [f"The headline is the unweighted mean of {', '.join(summary.headline_benchmarks)}."]
    if summary.peak_step is not None:
        lines.append(f"Peak: step {summary.peak_step}. {PEAK_NOTE}")
    lines += [
        f"Step {step}, {name}: {thought_line(found['thoughts'])}."
        for step, metrics in summary.metrics.items()
        for name in summary.benchmarks
        if (found := metrics.get(name)) and "thoughts" in found
    ]
    lines += [
        f"Step {step}, {name}: {found['seconds_mean']:.3g} seconds a problem."
        for step, metrics in summary.metrics.items()
        for name in summary.benchmarks
        if (found := metrics.get(name)) and "seconds_mean" in found
    ]
    lines += [
        f"Step {step} has no headline: {', '.join(names)} not done."
        for step, names in summary.missing.items()
    ]
    lines += [
        f"Warning, step {step}: {what}."
        for step, differences in summary.unlike_training.items()
        for what in differences
    ]
    return lines


def asked_how(protocol: Mapping[str, Any]) -> str:
    """A protocol's template as its readers are told; a model that thinks has none."""
    template = protocol.get("template")
    return f"Template {template}" if template else "The question and a line break, no template"


def to_markdown(summary: Summary) -> str:
    """Table 13 of the paper for this run: percent, each row's best step in bold."""
    protocol = summary.manifest["protocol"]
    steps = list(summary.metrics)
    lines = [
        "# Accuracy by training step (%)",
        "",
        f"Protocol {protocol.get('name')}, fingerprint {summary.manifest['fingerprint']}. "
        f"{asked_how(protocol)}.",
        "",
        *markdown_head(["benchmark", *(f"step {step}" for step in steps)]),
    ]
    for label, accuracy in table_rows(summary):
        best = max(accuracy.values(), default=None)
        cells = [_percent(accuracy.get(step), best) for step in steps]
        lines.append(markdown_row([label, *cells]))
    lines += ["", *(f"- {note}" for note in notes(summary))]
    return "\n".join(lines) + "\n"


def _percent(accuracy: float | None, best: float | None) -> str:
    if accuracy is None:
        return "–"
    text = f"{100 * accuracy:.2f}"
    return f"**{text}**" if accuracy == best else text
