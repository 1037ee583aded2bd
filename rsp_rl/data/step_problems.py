"""Problems with the steps of their solution: what methods that train on reasoning chains read.

One format, whatever the task: `question`, `steps` (a list of texts, a step each; JSON in a csv
file's cell) and `answer`, an object a line, or in any other form that `rsp_rl.data.row_files`
reads; what else a row holds is not looked at. Coconut's own files (arXiv 2412.06769) are of it. A
step and an answer are a line each, and `###` begins the answer's (`MARK`): none of them may hold
what ends it early.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import write_whole
from rsp_rl.data.json_text import read_cell
from rsp_rl.data.lone_surrogates import lone_surrogate

FIELDS = ("question", "steps", "answer")

MARK = "###"
"""Begins the line of the answer in a text of all three."""


@dataclass(frozen=True)
class StepProblem:
    """One problem.

    Attributes:
        question: What is asked.
        steps: What leads to the answer, in order, a line each; none only where nothing is trained
            on them.
        answer: The ground truth, a line.
    """

    question: str
    steps: tuple[str, ...]
    answer: str


def load_step_problems(
    files: str | Sequence[str], setting: str = "data files", *, needs_steps: bool = True
) -> list[StepProblem]:
    """All problems of some files, in their order.

    Args:
        files: One or several paths.
        setting: What an error calls them, such as a flag.
        needs_steps: Whether a row without steps is an error. What is only answered needs none, and
            a benchmark of which rows were left out is another benchmark.

    Raises:
        ConfigError: If a file is none that can be read, or holds no rows, or a row is no problem
            with steps: naming file, row from 0, cause and mend.
    """
    from rsp_rl.data.row_files import data_files, read_rows  # pyarrow

    problems = []
    for file in data_files(files, setting):
        before = len(problems)
        for number, row in enumerate(read_rows(file)):
            problems.append(step_problem(row, f"dataset {file}, row {number}", needs_steps))
        if len(problems) == before:
            raise ConfigError(f"dataset {file} has no rows; write it anew")
    return problems


def step_problem(row: Mapping[str, Any], place: str, needs_steps: bool = True) -> StepProblem:
    """The problem that a row is.

    Args:
        row: Of a file, say.
        place: What an error calls it.
        needs_steps: See `load_step_problems`.

    Raises:
        ConfigError: See `load_step_problems`.
    """
    row = {**row, "steps": read_cell(row["steps"])} if "steps" in row else row
    if problem := _row_problem(row, needs_steps):
        raise ConfigError(f"{place}: {problem}")
    return StepProblem(row["question"], tuple(row["steps"]), row["answer"])


def problems_digest(problems: Iterable[StepProblem]) -> str:
    """Of all that problems say, in their order, whatever their files are called."""
    digest = hashlib.blake2b(digest_size=16)
    for problem in problems:
        digest.update(json.dumps(asdict(problem)).encode() + b"\n")
    return digest.hexdigest()


def write_step_problems(
    file: Path, problems: Iterable[StepProblem], *, needs_steps: bool = True
) -> None:
    """Write problems as an object a line, the file whole or not at all.

    The same problems are the same bytes.

    Args:
        file: Where to, ending with `.jsonl`; its folder is made if needed.
        problems: At least one.
        needs_steps: See `load_step_problems`.

    Raises:
        ConfigError: If `load_step_problems` would refuse the file, whose rows are then not written.
    """
    lines = []
    for number, problem in enumerate(problems):
        row = {**asdict(problem), "steps": list(problem.steps)}
        step_problem(row, f"row {number} of what {file} is to hold", needs_steps)
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    if not lines:
        raise ConfigError(f"there are no problems to write to {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, "".join(lines))


def _row_problem(row: Mapping[str, Any], needs_steps: bool) -> str | None:
    if missing := [name for name in FIELDS if row.get(name) is None]:
        has = "is null" if missing[0] in row else "is missing"
        made = " (GSM8K's are made by rsp_rl.data.gsm8k_steps)" * (missing[0] == "steps")
        return (
            f"{missing[0]!r} {has}; every row needs {list(FIELDS)}{made}, this one has {list(row)}"
        )
    question, steps, answer = (row[name] for name in FIELDS)
    if not isinstance(question, str) or not question.strip():
        return f"'question' is {_shown(question)}; write what is asked as text, or drop the row"
    if not isinstance(steps, list | tuple):
        return f"'steps' is {_shown(steps)}, not a list of texts; write a list, a step each"
    if needs_steps and not steps:
        return "'steps' is empty; write a step at least, or drop the row"
    for number, step in enumerate(steps):
        if problem := _line_problem(step):
            return f"'steps[{number}]' {problem}"
    if problem := _line_problem(answer):
        return f"'answer' {problem}"
    return lone_surrogate({name: row[name] for name in FIELDS})


def _line_problem(line: Any) -> str | None:
    """Why something is not what a line of a solution can hold, as the rest of a sentence."""
    if not isinstance(line, str):
        return f"is {_shown(line)}; write it as text"
    if not line.strip():
        return "is empty; write what it says, or drop the row"
    if len(line.splitlines()) > 1 or line.splitlines()[0] != line:
        return f"holds a line break, {_shown(line)}, but is a line of its own; split or join it"
    if MARK in line:
        return f"holds {MARK}, {_shown(line)}, which begins the answer's line; write it otherwise"
    return None


def _shown(value: Any) -> str:
    return f"{value!r:.60}" if isinstance(value, str) else f"{value!r:.60}, no text"
