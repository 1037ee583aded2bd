"""Read an evaluation's files back; whatever is missing or damaged is named."""

from __future__ import annotations

import json
from typing import Any, TypedDict

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.evaluation.folder import EvaluationFolder, Sample, StepFolder
from rsp_rl.evaluation.metrics import BenchmarkMetrics, by_problem
from rsp_rl.evaluation.samples import read_samples

_METRICS_SUFFIX = ".metrics.json"


class OptionalAsked(TypedDict, total=False):
    """What only some evaluations' problems have."""

    steps: list[str]
    """Of the gold solution, of problems that have them."""


class AskedProblem(OptionalAsked):
    """One line of `<benchmark>.problems.jsonl`."""

    id: str
    question: str
    gold: str


def read_manifest(step: StepFolder) -> dict[str, Any]:
    """How a step was evaluated.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    if not step.manifest.is_file():
        raise RunFolderError(f"{step.manifest} is missing; evaluate this step again")
    manifest = read_json(step.manifest)
    protocol = manifest.get("protocol")
    if "fingerprint" not in manifest or not (isinstance(protocol, dict) and "headline" in protocol):
        raise RunFolderError(
            f"{step.manifest} lacks 'fingerprint' or the protocol's 'headline'; evaluate this step "
            "again"
        )
    return manifest


def read_metrics(step: StepFolder) -> dict[str, BenchmarkMetrics]:
    """Metrics of the step's finished benchmarks, by name.

    Raises:
        RunFolderError: If a file is damaged.
    """
    found: dict[str, BenchmarkMetrics] = {}
    for file in sorted(step.root.glob(f"*{_METRICS_SUFFIX}")):
        content = read_json(file)
        if lacking := sorted(BenchmarkMetrics.__required_keys__ - set(content)):
            raise RunFolderError(f"{file} lacks {lacking[0]!r}; remove it and evaluate again")
        name = file.name.removesuffix(_METRICS_SUFFIX)
        found[name] = content  # type: ignore[assignment]
    return found


def read_finished_samples(step: StepFolder, benchmark: str) -> list[Sample]:
    """Samples of a benchmark whose metrics are there.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    file = step.samples(benchmark)
    if not file.is_file():
        raise RunFolderError(
            f"{file} is missing though its metrics are there; remove {step.metrics(benchmark)} and "
            "evaluate again"
        )
    return read_samples(file)


def read_problems(folder: EvaluationFolder, benchmark: str) -> dict[str, AskedProblem]:
    """The problems that were asked, by id.

    Raises:
        RunFolderError: If the file is missing or damaged.
    """
    file = folder.problems(benchmark)
    if not file.is_file():
        raise RunFolderError(f"{file} is missing; evaluate again to write it")
    problems: dict[str, AskedProblem] = {}
    # Not splitlines(): JSON strings may hold Unicode's line breaks.
    for number, line in enumerate(file.read_text(encoding="utf-8").strip("\n").split("\n"), 1):
        try:
            problem = json.loads(line)
            if not all(isinstance(problem[key], str) for key in AskedProblem.__required_keys__):
                raise TypeError("id, question and gold must be strings")
        except (ValueError, TypeError, KeyError) as error:
            raise RunFolderError(
                f"{file}, line {number} is no problem ({error}); remove the file and evaluate again"
            ) from error
        problems[problem["id"]] = problem
    return problems


def read_groups(
    folder: EvaluationFolder, step: StepFolder, benchmark: str
) -> dict[str, list[Sample]]:
    """A finished benchmark's samples of each problem in order, problems by id.

    Raises:
        RunFolderError: If the samples file is damaged or does not hold the problems asked.
    """
    file = step.samples(benchmark)
    samples = read_finished_samples(step, benchmark)
    try:
        groups = by_problem(samples)
    except RunFolderError as error:
        raise RunFolderError(f"{file}: {error}") from error
    if odd := sorted(groups.keys() ^ read_problems(folder, benchmark).keys()):
        raise RunFolderError(
            f"{file} and {folder.problems(benchmark)} do not hold the same problems (for one, "
            f"{odd[0]!r}); evaluate this step again"
        )
    return groups
