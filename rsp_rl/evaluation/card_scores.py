"""What a run's evaluations say of one of its models, for the model's card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.laws import LAWS
from rsp_rl.evaluation.folder import EvaluationFolder, is_of_modes, modes_of
from rsp_rl.evaluation.metrics import BenchmarkMetrics
from rsp_rl.evaluation.reading import read_manifest
from rsp_rl.evaluation.summary import asked_how, read_summary
from rsp_rl.models.weights import values_digest
from rsp_rl.runs.card import Evaluated, Score, Scores
from rsp_rl.runs.folder import RunFolder


def evaluated(run: RunFolder, step: int, model: Path) -> Evaluated:
    """Scores of a step under all protocols, of these weights alone.

    Args:
        run: The run's folder, with its `evaluation`.
        step: Of the model.
        model: Its Hugging Face folder.

    Raises:
        RunFolderError: If an evaluation's file is missing or damaged.
    """
    digest = values_digest(model)
    scores: list[Scores] = []
    left_out: list[str] = []
    for name, folder in _folders(run):
        summary = read_summary(folder)
        if step not in summary.metrics:
            left_out.append(f"{name}, which has no finished benchmark of step {step}.")
            continue
        manifest = read_manifest(folder.step(step))
        if manifest.get("values") != digest:
            left_out.append(f"{name}, whose step {step} is not of these weights.")
            continue
        before = summary.metrics.get(0, {})
        rows = [
            Score(
                benchmark,
                found["problems"],
                found["samples_per_problem"],
                _interval(found),
                _interval(before[benchmark]) if benchmark in before and step else None,
            )
            for benchmark, found in summary.metrics[step].items()
        ]
        scores.append(Scores(name, _how(manifest), rows, manifest.get("made_with", [])))
    return Evaluated(scores, left_out)


def _folders(run: RunFolder) -> Iterator[tuple[str, EvaluationFolder]]:
    """Evaluations with something done, by protocol and mode."""
    for root in sorted((run.root / "evaluation").glob("*")):
        if is_of_modes(root):
            for mode in modes_of(root):
                yield f"{root.name}/{mode.name}", EvaluationFolder(mode)
        elif any(root.glob("step_*/*.metrics.json")):
            yield root.name, EvaluationFolder(root)


def _interval(metrics: BenchmarkMetrics) -> tuple[float, float, float]:
    return metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"]


def _how(manifest: Mapping[str, Any]) -> str:
    protocol, engine = manifest["protocol"], manifest.get("engine") or {}
    asked = list(protocol.get("benchmarks", {}).values())
    parts = [
        asked_how(protocol),
        *sorted({f"temperature {plan['temperature']}" for plan in asked if "temperature" in plan}),
        *([f"at most {protocol['max_tokens']} tokens"] if protocol.get("max_tokens") else []),
        _rows(protocol.get("rsp") or {}),
        *([f"law {protocol['law']['name']}"] if protocol.get("law") else []),
        *(str(engine[name]) for name in ("kind", "dtype") if name in engine),
    ]
    return ", ".join(parts)


def _rows(rsp: Mapping[str, Any]) -> str:
    """What was drawn for a prompt, as a protocol has it."""
    name = str(rsp.get("law") or RspOptions.law)  # protocols have only what is not usual
    law, scale = LAWS.get(name), rsp.get("scale", RspOptions.scale)
    if rsp.get("length"):
        return f"soft prompt of L = {rsp['length']}"
    if law is None:  # of a package that is gone: it may have added rows
        return f"law {name}, which this machine does not know, scale {scale:g}"
    if law.added and scale > 0:
        kind = "" if name == "question_noise" else f" of the law {name}"
        return f"noise on the question{kind}, alpha = {scale:g}"
    return "no soft prompt"
