"""Grade stored outputs anew, without a model: after a change of the grader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import locked
from rsp_rl.evaluation.folder import Sample, StepFolder, is_of_modes
from rsp_rl.evaluation.marked import MARKED, grade_marked
from rsp_rl.evaluation.metrics import write_metrics
from rsp_rl.evaluation.samples import read_samples, verdict_fields, write_samples
from rsp_rl.grading import pool
from rsp_rl.grading.batch import grade_many
from rsp_rl.grading.verdict import Verdict

_SUFFIX = ".samples.jsonl"


@dataclass(frozen=True)
class Rescored:
    """What a new grading changed in one file.

    Attributes:
        file: The samples file.
        accuracy: The new accuracy.
        changed: Samples, as before and now, whose verdict is another.
    """

    file: Path
    accuracy: float
    changed: list[tuple[Sample, Sample]]


def sample_files(path: Path) -> list[Path]:
    """The samples files at a path: one file, a step's, or all steps' of an evaluation or its modes.

    Raises:
        RunFolderError: If there are none.
    """
    if path.is_file() and path.name.endswith(_SUFFIX):
        return [path]
    files = sorted(path.glob(f"*{_SUFFIX}"))
    files += sorted(path.glob(f"step_*/*{_SUFFIX}"))
    if is_of_modes(path):
        files += sorted(path.glob(f"*/step_*/*{_SUFFIX}"))
    if not files:
        raise RunFolderError(
            f"{path} is no *{_SUFFIX} file, and no folder of an evaluation that holds some"
        )
    return files


def rescore(file: Path, *, processes: int | None = None) -> Rescored:
    """Grade a file's outputs again; its verdicts and metrics are replaced, its outputs stay.

    Args:
        file: A finished samples file.
        processes: Grading processes; by default one a core.

    Raises:
        RunFolderError: If a line is no sample, or an evaluation is at work in the folder.
    """
    benchmark = file.name.removesuffix(_SUFFIX)
    with locked(file.parent):
        samples = read_samples(file)
        verdicts = _marked(samples)
        if verdicts is None:
            items = [(sample["output"], sample["gold"], benchmark) for sample in samples]
            verdicts = list(grade_many(items, processes, progress=True))
            pool.shared().close()
        rescored: list[Sample] = [
            {**sample, **verdict_fields(verdict)}
            for sample, verdict in zip(samples, verdicts, strict=True)
        ]
        folder = StepFolder(file.parent)
        write_samples(file, rescored)
        # Metrics are those of a finished benchmark: an unfinished one gets none by this.
        accuracy = sum(sample["correct"] for sample in rescored) / max(1, len(rescored))
        if folder.metrics(benchmark).is_file():
            accuracy = write_metrics(folder, benchmark, rescored)
    pairs = zip(samples, rescored, strict=True)
    changed = [(old, new) for old, new in pairs if old["correct"] != new["correct"]]
    return Rescored(file, accuracy, changed)


def _marked(samples: Sequence[Sample]) -> list[Verdict] | None:
    """Verdicts on the answers of a model that thinks, None where they are another's."""
    if not all(sample["extraction_step"] == MARKED for sample in samples):
        return None
    return [grade_marked(sample["output"], sample["gold"]) for sample in samples]
