"""What the report's viewer holds: every problem's verdicts, and as many outputs as a page can bear.

A full evaluation has tens of thousands of outputs of up to 16,000 tokens, gigabytes. The page gets
the verdicts of all problems at all steps, and the outputs of the problems that are worth reading:
those whose verdict changed between steps first, then wrong ones, then those that were cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.display.thoughts import ShownThoughts, shown_thoughts
from rsp_rl.display.viewer import Ends, both_ends, pack
from rsp_rl.evaluation.folder import EvaluationFolder, Sample
from rsp_rl.evaluation.reading import (
    AskedProblem,
    OptionalAsked,
    read_finished_samples,
    read_problems,
)
from rsp_rl.evaluation.summary import Summary

SAMPLES = 4
"""Samples shown a problem and step."""
OUTPUT_BYTES = 16_000_000
"""Outputs in the page, compressed and in base64."""


class ProblemEntry(OptionalAsked):
    """A problem in the viewer's list; the lists run over the steps, `None` where not evaluated."""

    id: str
    question: str
    gold: str
    right: list[int | None]
    """Right samples."""
    cut_off: list[int | None]
    """Samples cut off at the token limit."""
    outputs: str
    """Key of its outputs in `ViewerData.outputs`, empty if they were left out."""


class BenchmarkEntry(TypedDict):
    """A benchmark in the viewer's list."""

    name: str
    samples: int
    """Samples a problem."""
    problems: list[ProblemEntry]


class ShownSample(Ends):
    """A sample as the viewer shows it; the ends are its output's."""

    number: int
    correct: bool
    extracted: str
    extraction_step: str
    stage: str
    tokens: int
    marks: list[str]
    """What went wrong: `cut off`, `no answer`, `timed out`, `crashed`, `unparsable`."""
    thoughts: ShownThoughts | None
    """Of samples with a law."""


@dataclass(frozen=True)
class ViewerData:
    """Data of the viewer.

    Attributes:
        steps: Training steps, the order of all lists.
        benchmarks: The list.
        outputs: Packed `list[list[ShownSample]]` by step and sample, by problem key.
    """

    steps: list[int]
    benchmarks: list[BenchmarkEntry]
    outputs: dict[str, str]


def viewer_data(folder: EvaluationFolder, summary: Summary, output_bytes: int) -> ViewerData:
    """Collect the viewer's data.

    Args:
        folder: The evaluation.
        summary: Its summary.
        output_bytes: Bound on all packed outputs together. Small benchmarks leave what they do not
            need to the larger ones.

    Raises:
        RunFolderError: If a file is missing or damaged.
    """
    entries: dict[str, BenchmarkEntry] = {}
    outputs: dict[str, str] = {}
    left = output_bytes
    asked = {name: read_problems(folder, name) for name in summary.benchmarks}
    for number, name in enumerate(sorted(asked, key=lambda name: len(asked[name]))):
        entry, found = _benchmark(folder, summary, name, asked[name])
        chosen = _choose(name, entry["problems"], found, left // (len(asked) - number))
        left -= sum(map(len, chosen.values()))
        outputs.update(chosen)
        entries[name] = entry
    return ViewerData(list(summary.metrics), [entries[name] for name in asked], outputs)


Found = list[list[list[ShownSample]]]
"""Shown samples by problem, step and sample."""


def _benchmark(
    folder: EvaluationFolder, summary: Summary, name: str, asked: dict[str, AskedProblem]
) -> tuple[BenchmarkEntry, Found]:
    """Verdicts and trimmed outputs of one benchmark over all steps."""
    problems: list[ProblemEntry] = [
        {**problem, "right": [], "cut_off": [], "outputs": ""} for problem in asked.values()
    ]
    found: Found = [[] for _ in problems]
    place = {problem: number for number, problem in enumerate(asked)}
    samples_per_problem = 0
    for step, metrics in summary.metrics.items():
        done = name in metrics
        for problem, shown in zip(problems, found, strict=True):
            problem["right"].append(0 if done else None)
            problem["cut_off"].append(0 if done else None)
            shown.append([])
        if not done:
            continue
        samples_per_problem = metrics[name]["samples_per_problem"]
        for sample in read_finished_samples(folder.step(step), name):
            if sample["problem"] not in place:
                raise RunFolderError(
                    f"{folder.step(step).samples(name)} holds problem {sample['problem']!r}, which "
                    f"{folder.problems(name)} does not; evaluate this step again"
                )
            number = place[sample["problem"]]
            problems[number]["right"][-1] += sample["correct"]
            problems[number]["cut_off"][-1] += sample["finish_reason"] == "length"
            if sample["sample"] < SAMPLES:
                found[number][-1].append(shown_sample(sample))
    return {"name": name, "samples": samples_per_problem, "problems": problems}, found


def shown_sample(sample: Sample) -> ShownSample:
    """A sample with its output trimmed to beginning and end."""
    thoughts = None
    if "law" in sample:
        texts = sample["thoughts"]["texts"]
        thoughts = shown_thoughts(
            sample["law"], sample["thoughts"], lambda token: texts.get(str(token), "")
        )
    marks = {
        "cut off": sample["finish_reason"] == "length",
        "no answer": not sample["extracted"],
        "timed out": sample["timed_out"],
        "crashed": sample["crashed"],
        "unparsable": sample["unparsable"],
    }
    return {
        "number": sample["sample"],
        "correct": sample["correct"],
        "extracted": sample["extracted"],
        "extraction_step": sample["extraction_step"],
        "stage": sample["stage"],
        "tokens": sample["tokens"],
        "marks": [mark for mark, holds in marks.items() if holds],
        **both_ends(sample["output"]),
        "thoughts": thoughts,
    }


def _choose(
    name: str, problems: list[ProblemEntry], found: Found, output_bytes: int
) -> dict[str, str]:
    """Pack outputs, the most interesting problems first, until the bytes are used up."""
    chosen: dict[str, str] = {}
    for number in sorted(range(len(problems)), key=lambda number: _rank(problems[number])):
        packed = pack(found[number])
        output_bytes -= len(packed)
        if output_bytes < 0:
            break
        key = f"{name}-{number}"
        problems[number]["outputs"] = key
        chosen[key] = packed
    return chosen


def _rank(problem: ProblemEntry) -> int:
    right = [count for count in problem["right"] if count is not None]
    if len(set(right)) > 1:
        return 0
    if not any(right):
        return 1
    return 2 if any(problem["cut_off"]) else 3
