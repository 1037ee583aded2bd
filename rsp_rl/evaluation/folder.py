"""Where an evaluation's files lie, and what one sample looks like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

_STEP = re.compile(r"step_(\d+)")


class Thoughts(TypedDict):
    """What stood at the positions of an output that are no ordinary tokens, a list entry each."""

    at: list[int]
    """Position among the generated tokens, from 0."""
    kind: list[str]
    """`rsp_rl.thoughts.rows.Kind` in small letters: `mix`, `mix_noise`, `hidden`, `forced`, ..."""
    ids: list[list[int]]
    """Tokens that count there, the emitted one first."""
    weights: list[list[float]]
    """Of each of them in a mixture, to four digits; none where the input is no mixture of few."""
    texts: dict[str, str]
    """The tokens' texts by id."""


class OptionalSample(TypedDict, total=False):
    """What only some evaluations' samples have."""

    law: str
    """Name of the law of its thoughts."""
    thoughts: Thoughts
    seconds: float
    """Of its batch, by the number of problems in it; of `rsp-rl latent eval`."""
    thoughts_cut_off: bool
    """Whether thoughts ended at their cap and not by themselves; of `rsp-rl latent ccot eval`."""


class Sample(OptionalSample):
    """One line of `<benchmark>.samples.jsonl`."""

    problem: str
    """Id of the problem within its benchmark (see `rsp_rl.data.benchmarks.Problem`)."""
    sample: int
    """Number of the sample among those of its problem, from 0."""
    seed: int
    """Sampling seed: a pure function of protocol seed, benchmark, problem and sample."""
    prompt_hash: str
    """Of the prompt's token ids, 16 hexadecimal digits."""
    gold: str
    """Gold answer that the output was graded against, so that a file can be graded anew alone."""
    output: str
    finish_reason: str
    """vLLM's: `stop`, or `length` if the token limit cut the output off."""
    tokens: int
    """Generated tokens."""
    extracted: str
    """Answer found in the output, empty if none."""
    extraction_step: str
    """One of `rsp_rl.grading.verdict.STEPS`, or `rsp_rl.evaluation.marked.MARKED`."""
    correct: bool
    stage: str
    """One of `rsp_rl.grading.verdict.STAGES`."""
    timed_out: bool
    crashed: bool
    unparsable: bool


@dataclass(frozen=True)
class StepFolder:
    """Evaluation of one model: one folder.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """Protocol, template, sampling, seeds, versions, commit, hardware, model: `how.json`."""
        return self.root / "how.json"

    def samples(self, benchmark: str) -> Path:
        """Every sample of a benchmark, a `Sample` a line, by problem and sample."""
        return self.root / f"{benchmark}.samples.jsonl"

    def metrics(self, benchmark: str) -> Path:
        """A benchmark's numbers (`rsp_rl.evaluation.metrics.BenchmarkMetrics`); written last."""
        return self.root / f"{benchmark}.metrics.json"


@dataclass(frozen=True)
class EvaluationFolder:
    """All evaluations of one run under one protocol: `<RUN_DIR>/evaluation/<protocol>`.

    Attributes:
        root: The folder.
    """

    root: Path

    def step(self, number: int) -> StepFolder:
        """Folder of one checkpoint; 0 is the base model."""
        return StepFolder(self.root / f"step_{number}")

    def steps(self) -> dict[int, StepFolder]:
        """The steps that have a folder, in order."""
        found = {}
        for folder in self.root.glob("step_*"):
            if (match := _STEP.fullmatch(folder.name)) and folder.is_dir():
                found[int(match[1])] = StepFolder(folder)
        return dict(sorted(found.items()))

    def problems(self, benchmark: str) -> Path:
        """The benchmark's problems that were asked, `{"id", "question", "gold"}` a line."""
        return self.root / f"{benchmark}.problems.jsonl"

    @property
    def engine_log(self) -> Path:
        """What engines and libraries printed."""
        return self.root / "logs" / "engine.log"

    @property
    def summary_csv(self) -> Path:
        """One row a step and benchmark."""
        return self.root / "summary.csv"

    @property
    def summary_markdown(self) -> Path:
        """The paper's Table 13 for this run."""
        return self.root / "summary.md"

    @property
    def summary_json(self) -> Path:
        """Of `rsp-rl latent eval`: its numbers in one (`rsp_rl.evaluation.step_answers`)."""
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        """Self-contained page: curves, table, viewer of problems with their samples."""
        return self.root / "report.html"

    def plot(self, name: str) -> Path:
        """A picture: `headline`, `benchmarks` or `response_length`."""
        return self.root / f"{name}.png"


def is_of_modes(root: Path) -> bool:
    """Whether a folder is an evaluation's with modes, a folder of the usual kind each."""
    return (root / "modes.md").is_file()


def modes_of(root: Path) -> list[Path]:
    """The folders of modes with something done in an evaluation's folder, by name."""
    return [
        folder for folder in sorted(root.glob("*")) if any(folder.glob("step_*/*.metrics.json"))
    ]
