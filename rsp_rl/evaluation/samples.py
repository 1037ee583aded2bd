"""Samples on disk: appended as they finish, taken up again after a crash, sorted when complete."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_type_hints

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import write_whole
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.thoughts import check_thoughts
from rsp_rl.grading.verdict import Verdict

Key = tuple[str, int]
"""Problem id and sample number."""

_FIELDS = {
    name: kind for name, kind in get_type_hints(Sample).items() if name in Sample.__required_keys__
}


def read_samples(file: Path) -> list[Sample]:
    """All samples of a file; what follows the last line break was cut short and does not count.

    Raises:
        RunFolderError: Naming file and line, if a line is no sample or a sample is there twice.
    """
    *lines, _ = file.read_bytes().split(b"\n")
    samples, seen = [], set()
    for number, line in enumerate(lines, start=1):
        try:
            sample = json.loads(line)
            _check(sample)
        except ValueError as error:
            raise RunFolderError(
                f"{file}, line {number} is no sample ({error}); remove the line, it will be "
                "generated again"
            ) from error
        if key_of(sample) in seen:
            raise RunFolderError(
                f"{file}, line {number}: problem {sample['problem']!r}, sample {sample['sample']} "
                "is there twice; remove the line"
            )
        seen.add(key_of(sample))
        samples.append(sample)
    return samples


def _check(sample: object) -> None:
    if not isinstance(sample, dict):
        raise ValueError("no JSON object")
    for name, kind in _FIELDS.items():
        if type(sample.get(name)) is not kind:
            raise ValueError(f"{name!r} is {sample.get(name)!r:.40}, not {kind.__name__}")
    check_thoughts(sample)  # type: ignore[arg-type]


def verdict_fields(verdict: Verdict) -> dict[str, str | bool]:
    """What a sample keeps of the grader's verdict."""
    return {
        "extracted": verdict.extracted,
        "extraction_step": verdict.extraction_step,
        "correct": verdict.correct,
        "stage": verdict.stage,
        "timed_out": verdict.timed_out,
        "crashed": verdict.crashed,
        "unparsable": verdict.unparsable,
    }


def key_of(sample: Sample) -> Key:
    """What identifies a sample within its benchmark."""
    return sample["problem"], sample["sample"]


def write_samples(file: Path, samples: Iterable[Sample]) -> None:
    """Write a file of samples whole or not at all."""
    write_whole(file, "".join(_line(sample) for sample in samples))


def _line(sample: Sample) -> str:
    # ASCII: no character of an output can be cut in two, or be taken for a line break.
    return json.dumps(sample) + "\n"


class SampleFile(contextlib.AbstractContextManager):
    """One benchmark's samples while they are generated.

    Lines stand in the order in which they finished; `finish` puts them into that of the problems,
    so that a finished file does not tell whether its run was interrupted.

    Args:
        file: The samples file; an earlier run's lines are read, a line that was cut short goes.

    Raises:
        RunFolderError: See `read_samples`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.samples = read_samples(file) if file.is_file() else []
        if file.is_file():
            content = file.read_bytes()
            complete = content.rfind(b"\n") + 1
            if complete < len(content):
                os.truncate(file, complete)
        self._appending = file.open("a", encoding="ascii")

    def missing(self, asked: Mapping[Key, str]) -> list[Key]:
        """What has still to be asked.

        Args:
            asked: Hash of each sample's prompt.

        Raises:
            RunFolderError: If the file holds what is not asked.
        """
        left = dict(asked)
        for sample in self.samples:
            if left.pop(key_of(sample), None) != sample["prompt_hash"]:
                raise RunFolderError(
                    f"{self._file}: problem {sample['problem']!r}, sample {sample['sample']} was "
                    "not asked, or with another prompt (another tokenizer?); remove the file"
                )
        return list(left)

    def append(self, sample: Sample) -> None:
        """Keep a sample, at once.

        Raises:
            RunFolderError: If it cannot be written (the disk is full).
        """
        try:
            self._appending.write(_line(sample))
            self._appending.flush()
        except OSError as error:
            raise RunFolderError(
                f"{self._file} cannot be written ({error}); make room and run the same command "
                "again, it goes on with the next sample"
            ) from error
        self.samples.append(sample)

    def finish(self, order: Iterable[str]) -> list[Sample]:
        """Sort the complete file by problem, in the given order of ids, and by sample."""
        place = {problem: number for number, problem in enumerate(order)}
        self.samples.sort(key=lambda sample: (place[sample["problem"]], sample["sample"]))
        self.close()
        write_samples(self._file, self.samples)
        return self.samples

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with contextlib.suppress(OSError):  # what could not be flushed was already reported
            self._appending.close()

    def __exit__(self, *_: object) -> None:
        self.close()
