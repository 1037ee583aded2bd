"""Solved problems to train on: a JSON lines file in GSM8K's form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.lone_surrogates import lone_surrogate

_GOLD = "####"


@dataclass(frozen=True)
class SolvedProblem:
    """A problem with a solution.

    Attributes:
        question: What is asked.
        solution: What the model is to write.
    """

    question: str
    solution: str


def read_solutions(file: Path) -> list[SolvedProblem]:
    r"""Read `{"question": ..., "answer": ...}` a line.

    GSM8K's last line, `#### 72`, becomes a sentence with `\boxed{72}`, as SoftCoT's authors do:
    graders look for the box. Answers without such a line stay as they are.

    Raises:
        ConfigError: Naming file and line, if one cannot be read, or if there is none.
    """
    try:
        lines = file.read_bytes().splitlines()  # bytes: JSON strings may hold other line breaks
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror})") from error
    problems = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            question, answer = row["question"], row["answer"]
            if not (isinstance(question, str) and isinstance(answer, str) and answer.strip()):
                raise TypeError("both must be text")
            if half := lone_surrogate({"question": question, "answer": answer}):
                raise ValueError(half)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file}, line {number} has no 'question' and 'answer' to train on ({error})"
            ) from error
        problems.append(SolvedProblem(question.strip(), _with_box(answer.strip())))
    if not problems:
        raise ConfigError(f"{file} is empty: it needs a line a solved problem")
    return problems


def _with_box(answer: str) -> str:
    reasoning, hashes, gold = answer.rpartition(_GOLD)
    if not hashes:
        return answer
    return f"{reasoning}Therefore, the final answer is \\boxed{{{gold.strip()}}}."
