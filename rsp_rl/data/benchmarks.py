"""Benchmarks: where their problems come from, what is asked, and the gold answers.

One entry of `BENCHMARKS` a benchmark. SimpleRL-Zoo's evaluation files (arXiv 2503.18892) are the
reference for questions and golds. They are read from a local folder, `<folder>/<name>/test.jsonl`,
or else loaded from the hub repository that holds the same fields.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data import arithmetic, sums
from rsp_rl.data.lone_surrogates import lone_surrogate
from rsp_rl.grading.boxes import last_box
from rsp_rl.grading.gold import MISSING

#: Environment variable that names the local folder.
DATA_DIR_VARIABLE = "RSP_RL_DATA_DIR"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        id: Unique within the benchmark: the file's own id, or the row number from 0.
        question: What is asked, blanks at its ends removed.
        gold: Gold answer; an empty one can never be matched.
    """

    benchmark: str
    id: str
    question: str
    gold: str


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the Hugging Face hub.

    Attributes:
        repository: Such as `openai/gsm8k`; a local folder works too.
        split: Which split is the test set.
        config: Configuration, where the repository has several.
        revision: Commit, so that numbers stay comparable; None is the newest.
    """

    repository: str
    split: str = "test"
    config: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """How to read one benchmark.

    Attributes:
        name: Its name, and the name of its folder.
        source: Where users without local files get it, or a function that makes its rows.
        question: Field of the question.
        gold: Rule that makes a row's gold answer.
        problems: How many there are; another number is an error.
        licence: As its authors state it.
        id: Field of an id that is unique, on the hub and in the local file alike.
        empty_golds: How many golds are empty; another number is an error.
    """

    name: str
    source: HubDataset | Callable[[], list[Row]]
    question: str
    gold: Callable[[Row], str]
    problems: int
    licence: str
    id: str | None = None
    empty_golds: int = 0


def _text(row: Row, field: str) -> str:
    """A field that must be text: what else has its methods would give a gold of its own."""
    value = row[field]
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is {value!r:.40}, not text")
    return value


def _after_hashes(row: Row) -> str:
    """GSM8K: what follows `####` in the answer."""
    _, hashes, gold = _text(row, "answer").rpartition("####")
    if not hashes:
        raise ValueError("no '####' in field 'answer'")
    return gold.strip()


def _last_box(row: Row) -> str:
    """The content of the solution's last box."""
    return last_box(_text(row, "solution"))


def _answer(row: Row) -> str:
    """The answer, a text or a number, as it is."""
    value = row["answer"]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str) and not (is_number and math.isfinite(value)):
        raise ValueError(f"field 'answer' is {value!r:.40}, neither text nor number")
    return str(value)


def _answer_without_dollars(row: Row) -> str:
    return _text(row, "answer").replace("$", "").strip()


def _first_final_answer(row: Row) -> str:
    """OlympiadBench: the first of a list; dollars within it stay, between its several answers."""
    answers = row["final_answer"]
    if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
        raise ValueError(f"field 'final_answer' is {answers!r:.40}, not a list of texts")
    return answers[0].strip("$")


def _arithmetic_rows() -> list[Row]:
    """The held-out problems of the CPU recipe (`arithmetic.write_dataset`'s by default)."""
    problems = arithmetic.generate("heldout", 200)
    return [{"question": problem.question, "answer": problem.answer} for problem in problems]


def _sums_rows(level: str) -> list[Row]:
    """The held-out problems of the small real model's recipe, of one level."""
    _, size = sums.SIZES[level]
    problems = sums.generate("heldout", size, level=level)
    return [{"question": problem.question, "answer": problem.answer} for problem in problems]


# Revisions were taken from public pages and projects that pin them; None where only an abbreviated
# hash, or none, could be confirmed.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            name="gsm8k",
            source=HubDataset(
                "openai/gsm8k", config="main", revision="e53f048856ff4f594e959d75785d2c2d37b678ee"
            ),
            question="question",
            gold=_after_hashes,
            problems=1319,
            licence="MIT",
        ),
        Benchmark(
            name="math500",
            source=HubDataset(
                "HuggingFaceH4/MATH-500", revision="ff5b20257d8185524591543f8ff5993951537bb8"
            ),
            question="problem",
            gold=_last_box,
            problems=500,
            licence="MIT (MATH)",
            id="unique_id",
        ),
        Benchmark(
            name="minerva_math",
            source=HubDataset("svc-huggingface/minerva-math"),
            question="problem",
            gold=_last_box,
            problems=272,
            licence="as published by its authors (MIT OpenCourseWare)",
        ),
        Benchmark(
            name="gaokao2023en",
            source=HubDataset(
                "MARIO-Math-Reasoning/Gaokao2023-Math-En",
                split="train",
                revision="6c7bdecd205ed623b5e6c92335deb4f13a7cdd9b",
            ),
            question="question",
            gold=_answer_without_dollars,
            problems=385,
            licence="MIT",
            empty_golds=2,
        ),
        Benchmark(
            name="olympiadbench",
            source=HubDataset("zwhe99/simplerl-OlympiadBench"),
            question="question",
            gold=_first_final_answer,
            problems=675,
            licence="Apache-2.0",
            id="id",
        ),
        Benchmark(
            name="college_math",
            source=HubDataset("di-zhang-fdu/College_Math_Test"),
            question="question",
            gold=_answer_without_dollars,
            problems=2818,
            licence="CC BY 3.0",
        ),
        Benchmark(
            name="aime24",
            source=HubDataset(
                "HuggingFaceH4/aime_2024",
                split="train",
                revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
            ),
            question="problem",
            gold=_answer,
            problems=30,
            licence="as published by the MAA",
            id="id",
        ),
        Benchmark(
            name="amc23",
            source=HubDataset("zwhe99/amc23"),
            question="question",
            gold=_answer,
            problems=40,
            licence="as published by the MAA",
            id="id",
        ),
        Benchmark(
            name="arithmetic",
            source=_arithmetic_rows,
            question="question",
            gold=_answer,
            problems=200,
            licence="Apache-2.0",
        ),
        Benchmark(
            name="sums",
            source=partial(_sums_rows, sums.WORDS),
            question="question",
            gold=_answer,
            problems=200,
            licence="Apache-2.0",
        ),
        Benchmark(
            name="sums_digits",
            source=partial(_sums_rows, sums.DIGITS),
            question="question",
            gold=_answer,
            problems=108,
            licence="Apache-2.0",
        ),
    )
}


def load_benchmark(name: str, data_dir: Path | None = None) -> list[Problem]:
    """All problems of a benchmark, in the order of its file.

    Args:
        name: A key of `BENCHMARKS`.
        data_dir: Folder of local files; without one, the folder that `RSP_RL_DATA_DIR` names, and
            without that the hub.

    Raises:
        ConfigError: If the benchmark is unknown, its file or hub dataset cannot be had, a row is
            damaged or lacks a field, or there are more or fewer problems than there should be.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown benchmark {name!r}; use one of {', '.join(BENCHMARKS)}")
    if data_dir is None and (variable := os.environ.get(DATA_DIR_VARIABLE)):
        data_dir = Path(variable)
    return read_problems(BENCHMARKS[name], data_dir)


def read_problems(benchmark: Benchmark, data_dir: Path | None) -> list[Problem]:
    """All problems of an entry, from the folder's file if there is a folder.

    Raises:
        ConfigError: See `load_benchmark`.
    """
    source = benchmark.source
    if not isinstance(source, HubDataset):
        where = f"what rsp_rl/data makes of {benchmark.name}"
        rows: Iterable[Row] = source()
    elif data_dir is not None:
        file = data_dir / benchmark.name / "test.jsonl"
        where, rows = str(file), _file_rows(file)
    else:
        where = f"hub dataset {source.repository}"
        rows = hub_rows(source, f"set {DATA_DIR_VARIABLE} or --data-dir")
    problems = [_problem(benchmark, number, row, where) for number, row in enumerate(rows)]
    _check(benchmark, where, problems)
    return problems


def _file_rows(file: Path) -> Iterator[Row]:
    """Rows of a JSON lines file."""
    if not file.is_file():
        raise ConfigError(
            f"benchmark file {file} cannot be read: there is none; put it there, or give neither "
            f"--data-dir nor {DATA_DIR_VARIABLE} to load from the hub"
        )
    from rsp_rl.data.row_files import read_rows  # it imports pyarrow, which names alone do not need

    return read_rows(file)


def hub_rows(source: HubDataset, otherwise: str) -> Iterable[Row]:
    """Rows of a dataset on the hub.

    Args:
        source: The dataset.
        otherwise: What the error says to do instead, to read local files.

    Raises:
        ConfigError: If it cannot be loaded.
    """
    import datasets  # slow to import, and not needed with local files

    try:
        return datasets.load_dataset(
            source.repository, source.config, split=source.split, revision=source.revision
        )
    except Exception as error:  # the library's own, the hub's and the network's are of all kinds
        raise ConfigError(
            f"hub dataset {source.repository} (config {source.config}, split {source.split}, "
            f"revision {source.revision}) cannot be loaded: {error}; to read local files instead, "
            f"{otherwise}"
        ) from error


def _problem(benchmark: Benchmark, number: int, row: Row, where: str) -> Problem:
    try:
        gold = benchmark.gold(row)
        question = (_text(row, benchmark.question) + _choice(gold)).strip()
        identifier = _identifier(row, benchmark.id) if benchmark.id else str(number)
        if not question:
            raise ValueError(f"field {benchmark.question!r} is empty")
        if gold.strip().lower() in MISSING:
            raise ValueError(f"the gold answer is {gold!r}, a missing value written as text")
        if problem := lone_surrogate({"question": question, "gold": gold, "id": identifier}):
            raise ValueError(problem)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        cause = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{where}, line {number + 1} is no row of {benchmark.name} ({cause}); get the file "
            "that rsp_rl/data/benchmarks.py describes"
        ) from error
    return Problem(benchmark.name, identifier, question, gold)


def _identifier(row: Row, field: str) -> str:
    value = row[field]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f"field {field!r} is {value!r:.40}, neither text nor whole number")
    return str(value)


def _choice(gold: str) -> str:
    """What SimpleRL-Zoo appends to a question that is answered by one of two words.

    It looks at the gold without its full stop (`parse_question` after `strip_string`).
    """
    word = gold.strip().rstrip(".").lower()
    if word in ("true", "false"):
        return " (True or False)"
    return " (Yes or No)" if word in ("yes", "no") else ""


def _check(benchmark: Benchmark, where: str, problems: list[Problem]) -> None:
    """Fail unless the problems are those that the entry promises."""
    if len(problems) != benchmark.problems:
        raise ConfigError(
            f"{where} holds {len(problems)} problems, {benchmark.name} has {benchmark.problems}; "
            "get the whole file, or correct the entry in rsp_rl/data/benchmarks.py"
        )
    empty = sum(not problem.gold.strip() for problem in problems)
    if empty != benchmark.empty_golds:
        raise ConfigError(
            f"{where} holds {empty} problems without a gold answer, {benchmark.name} has "
            f"{benchmark.empty_golds}; is this the file that rsp_rl/data/benchmarks.py describes?"
        )
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise ConfigError(
                f"{where} holds two problems with {benchmark.id} {problem.id!r}; remove one"
            )
        seen.add(problem.id)
