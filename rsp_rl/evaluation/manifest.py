"""How an evaluation's numbers are made, kept beside them, so that no others get among them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import read_json, write_json, write_whole
from rsp_rl.comparators.methods import preset_line
from rsp_rl.data.benchmarks import Problem
from rsp_rl.evaluation.distinct import check_distinct
from rsp_rl.evaluation.folder import EvaluationFolder, StepFolder
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.evaluation.provenance import provenance
from rsp_rl.evaluation.reading import AskedProblem
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.models.weights import stored_dtype, values_digest, weights_digest
from rsp_rl.runs.merging import made_of
from rsp_rl.thoughts.settings import ThoughtSettings

#: What a folder's samples have in common, by its name in the manifest, as an error calls it.
_SAME = {
    "fingerprint": "protocol",
    "weights": "model",
    "sampler": "engine",
    "trained": "trained comparator",
    "thinks": "way to think",
    "batch_size": "batch size, which their seconds are of",
}


def made_with(folder: StepFolder, what: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Everything that a folder's samples were generated with, once each: a resumed run may move.

    Args:
        folder: Begun or new.
        what: What all of its samples must have in common, by the names of `_SAME`.

    Raises:
        RunFolderError: If the folder was begun with something else.
    """
    before = []
    if folder.manifest.is_file():
        begun = read_json(folder.manifest)
        for name, value in what.items():
            if begun.get(name) != value:
                raise RunFolderError(
                    f"{folder.root} holds samples of another {_SAME[name]} "
                    f"(see {folder.manifest.name}); remove the folder, or choose another one with "
                    "--output"
                )
        before = begun.get("made_with", [])
    now = provenance()
    return before if now in before else [*before, now]


def write_manifest(
    folder: StepFolder,
    model: Path,
    protocol: Protocol,
    engine: EngineOptions,
    context: int | None,
    trained: str | None,
    unlike_training: Sequence[str] = (),
    thinking: ThoughtSettings | None = None,
) -> None:
    """Say how the numbers are made; refuse to mix them with others'.

    Raises:
        RunFolderError: If the folder was begun with another protocol, model, kind of engine, or
            training of a comparator, or another step of the run has the same weights.
    """
    what = {
        "fingerprint": protocol.fingerprint(),
        "weights": weights_digest(model),
        "sampler": engine.kind,
        "trained": trained,
    }
    made = made_with(folder, what)
    values = values_digest(model)
    evaluation = EvaluationFolder(folder.root.parent)
    steps = evaluation.steps()
    others = {
        step: read_json(other.manifest)
        for step, other in steps.items()
        if other != folder and other.manifest.is_file()
    }
    own = {step: {"values": values} for step, other in steps.items() if other == folder}
    check_distinct(evaluation, others | own)
    comparator = protocol.comparator
    manifest = {
        "protocol": protocol.to_dict(),
        **what,
        "preset": comparator and preset_line(comparator, protocol.rsp.length),
        # With it and the protocol, every draw can be made again.
        "law": {"mean": protocol.rsp.mean, "std": protocol.rsp.std, **_table(protocol)},
        "model": str(model),
        "values": values,
        "stored": {"dtype": stored_dtype(model), "made_of": made_of(model)},
        "unlike_training": list(unlike_training),
        # What the protocol's law is with this model; only where there is one.
        **({} if thinking is None else {"thinking": thinking.to_dict()}),
        "engine": {**asdict(engine), "dtype": engine.resolved_dtype()},
        "context": context,
        "made_with": made,
    }
    write_json(folder.manifest, manifest)


def _table(protocol: Protocol) -> dict[str, str]:
    """Which table a law drew rows of, if it did."""
    digest = protocol.rsp.table_digest
    return {} if digest is None else {"table_digest": digest}


def add_difference(folder: StepFolder, line: str) -> None:
    """Keep what was found unlike the training once the numbers were there."""
    manifest = read_json(folder.manifest)
    known = manifest.get("unlike_training", [])  # not there in evaluations of before
    if line not in known:
        write_json(folder.manifest, manifest | {"unlike_training": [*known, line]})


def write_problems(folder: StepFolder, benchmark: str, problems: list[Problem]) -> None:
    """Keep the problems beside the steps; see `keep_problems`."""
    rows: list[AskedProblem] = [
        {"id": problem.id, "question": problem.question, "gold": problem.gold}
        for problem in dict.fromkeys(problems)
    ]
    keep_problems(folder, benchmark, rows)


def keep_problems(folder: StepFolder, benchmark: str, rows: Sequence[AskedProblem]) -> None:
    """Keep what is asked beside the steps.

    Raises:
        RunFolderError: If other problems were asked under that name before.
    """
    file = EvaluationFolder(folder.root.parent).problems(benchmark)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if file.is_file():
        if file.read_text() != text:
            raise RunFolderError(
                f"{file} holds other problems than {benchmark} has now: the benchmark's file was "
                "changed between two evaluations; restore it, or choose another --output"
            )
        return
    write_whole(file, text)


def is_complete(folder: StepFolder, protocol: Protocol) -> bool:
    """Whether a model's evaluation is all there, by its files alone."""
    if not folder.manifest.is_file():
        return False
    same = read_json(folder.manifest).get("fingerprint") == protocol.fingerprint()
    return same and all(folder.metrics(plan.benchmark).is_file() for plan in protocol.benchmarks)
