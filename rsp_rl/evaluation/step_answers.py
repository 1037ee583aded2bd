"""Answers of models that think in hidden states, in the files of every other evaluation.

The file of problems is the one benchmark and the model step 0. A sample's `tokens` are thoughts and
tokens, the sequential steps that the answer took, as the papers count them. What is there already
is not asked again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsp_rl.basics.files import locked, write_json
from rsp_rl.console.screen import bar, say
from rsp_rl.data.step_problems import StepProblem
from rsp_rl.evaluation.folder import EvaluationFolder, OptionalSample, Sample, StepFolder
from rsp_rl.evaluation.manifest import keep_problems
from rsp_rl.evaluation.marked import grade_marked
from rsp_rl.evaluation.metrics import write_metrics
from rsp_rl.evaluation.outputs import write_outputs
from rsp_rl.evaluation.reading import read_metrics
from rsp_rl.evaluation.samples import SampleFile, verdict_fields
from rsp_rl.evaluation.thoughts import thought_count
from rsp_rl.inference.prompts import stable_hash

HUGGINGFACE = "huggingface"


@dataclass(frozen=True)
class Asked:
    """What a model is asked.

    Attributes:
        file: Of the problems, as the command line has it.
        problems: In order; their places are their ids.
        thoughts: How many before an answer, with a classifier the most; None for the model's own.
        limit: How many of the file's problems these are, None for all.
        batch_size: Problems at a time, which seconds a problem depend on.
        engine: `huggingface`, the reference, or `vllm`, which keeps nothing until all is answered.
    """

    file: str
    problems: Sequence[StepProblem]
    thoughts: int | None = None
    limit: int | None = None
    batch_size: int = 64
    engine: str = HUGGINGFACE

    @property
    def benchmark(self) -> str:
        """Names files: the problems' file without its ending."""
        return re.sub(r"[^\w.-]+", "_", Path(self.file).stem)

    @property
    def fingerprint(self) -> str:
        """Of what changes outputs, whatever the model."""
        texts = [[problem.question, problem.answer] for problem in self.problems]
        return stable_hash([texts, self.thoughts], 8).hex()

    @property
    def results(self) -> str:
        """Names the folder: less than all of the file, or other thoughts, are another one."""
        if self.thoughts is None and self.limit is None:
            return self.benchmark
        return f"{self.benchmark}-{self.fingerprint[:6]}"

    def protocol(self, max_tokens: int) -> dict[str, Any]:
        """What a manifest has of it."""
        return {
            "name": self.results,
            "template": None,
            "data": self.file,
            "limit": self.limit,
            "max_tokens": max_tokens,
            "headline": [self.benchmark],
        }


@dataclass(frozen=True)
class Given:
    """An answer.

    Attributes:
        text: After the thoughts.
        tokens: Thoughts and tokens of the text.
        thoughts: How many came before.
        ended: Whether it ended by itself, within the limit.
        seconds: Of its batch, by the number of problems in it.
        law: What the thoughts' law is called.
        token: Id and text of the token that holds a thought's place, where there is one.
        cut_off: Whether a limit ended the thoughts, where they can end by themselves.
    """

    text: str
    tokens: int
    thoughts: int
    ended: bool
    seconds: float
    law: str
    token: tuple[int, str] | None = None
    cut_off: bool | None = None


def digest(content: bytes) -> str:
    """16 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def answer_all(
    asked: Asked,
    root: Path,
    questions: Sequence[Sequence[int]],
    manifest: Callable[[StepFolder], dict[str, Any]],
    answers: Callable[[list[Sequence[int]]], Iterable[Given]],
    summary: Callable[[Sequence[Sample]], dict[str, Any]],
) -> dict[str, Any]:
    """Have all problems answered, and write samples, metrics, tables and the page.

    Args:
        asked: The problems, and how they are asked.
        root: Where everything goes.
        questions: Tokens of the problems' questions.
        manifest: What the step's folder is to say of itself.
        answers: To the questions that are left, in their order.
        summary: What `summary.json` has of the samples beside the numbers that all have.

    Returns:
        What `summary.json` has.

    Raises:
        RunFolderError: If the folder holds another evaluation, is in use, or cannot be written.
    """
    folder, step, name = EvaluationFolder(root), EvaluationFolder(root).step(0), asked.benchmark
    ids = [str(number) for number in range(len(asked.problems))]
    with locked(step.root):
        write_json(step.manifest, manifest(step))
        rows = zip(ids, asked.problems, strict=True)
        keep_problems(
            *(step, name),
            [
                {"id": id_, "question": p.question, "gold": p.answer, "steps": [*p.steps]}
                for id_, p in rows
            ],
        )
        hashes = [digest(np.asarray(q, dtype=np.int64).tobytes()) for q in questions]
        with SampleFile(step.samples(name)) as file:
            keys = ((id_, 0) for id_ in ids)
            left = file.missing(dict(zip(keys, hashes, strict=True)))
            missing = [int(id_) for id_, _ in left]
            say(f"{len(missing)} problems to answer, {len(ids) - len(missing)} are there")
            if missing:
                given = answers([questions[number] for number in missing])
                told = bar(zip(missing, given, strict=True), unit="problem", total=len(missing))
                for number, one in told:
                    file.append(_sample(number, hashes[number], asked.problems[number].answer, one))
            samples = file.finish(ids)
        write_metrics(step, name, samples)
    found = _numbers(asked, step, samples) | summary(samples)
    write_json(folder.summary_json, found)
    write_outputs(folder)
    return found


def _sample(number: int, prompt_hash: str, gold: str, given: Given) -> Sample:
    own: OptionalSample = {"seconds": given.seconds}
    if given.thoughts:
        ids, texts = [], {}
        if given.token is not None:
            ids, texts = [given.token[0]], {str(given.token[0]): given.token[1]}
        own |= {
            "law": given.law,
            "thoughts": {
                "at": [*range(given.thoughts)],
                "kind": ["hidden"] * given.thoughts,
                "ids": [ids] * given.thoughts,
                "weights": [[]] * given.thoughts,
                "texts": texts,
            },
        }
        if given.cut_off is not None:
            own["thoughts_cut_off"] = given.cut_off
    return {
        "problem": str(number),
        "sample": 0,
        "seed": 0,  # of nothing: answers are greedy
        "prompt_hash": prompt_hash,
        "gold": gold,
        "output": given.text,
        "finish_reason": "stop" if given.ended else "length",
        "tokens": given.tokens,
        **verdict_fields(grade_marked(given.text, gold)),
        **own,
    }  # type: ignore[return-value]


def _numbers(asked: Asked, step: StepFolder, samples: Sequence[Sample]) -> dict[str, Any]:
    metrics = read_metrics(step)[asked.benchmark]
    return {
        "accuracy": metrics["accuracy"],
        "accuracy_low": metrics["accuracy_low"],
        "accuracy_high": metrics["accuracy_high"],
        "tokens": metrics["tokens_mean"],
        "seconds_per_problem": metrics["seconds_mean"],
        "thoughts": float(np.mean([thought_count(s) if "law" in s else 0 for s in samples])),
        "problems": metrics["problems"],
        "unfinished": sum(sample["finish_reason"] == "length" for sample in samples),
        "without_answer": sum(not sample["extracted"] for sample in samples),
        "batch_size": asked.batch_size,
        "data": asked.file,
    }
