"""The training set of the real recipes: MATH, levels 3 to 5, as parquet files that verl reads.

The problems are SimpleRL-Zoo's (arXiv 2503.18892; the paper's `simplelr_math_35`), from the hub or
from a local file of MATH problems. What MATH-500 holds too, exactly or nearly, is left out (see
`rsp_rl.data.near_duplicates`), so that evaluation stays held out. Prompts are chat messages whose
rendering is the evaluation's template, token for token.

``python -m rsp_rl.data.prepare`` is the command line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import write_json
from rsp_rl.data.benchmarks import Problem
from rsp_rl.data.lone_surrogates import lone_surrogate
from rsp_rl.data.near_duplicates import DuplicateFinder, same_text_key
from rsp_rl.data.prompt_files import check_dataset
from rsp_rl.data.templates import ChatTemplate, TextTemplate, get_template
from rsp_rl.grading.gold import gold_text

#: The "hard" set of SimpleRL-Zoo. Repository and file are those of its README. Row count (8,523),
#: columns, and two rows without an answer are as users of the file report them; we have not loaded
#: it ourselves. Its own `prompt` column is not used: it holds the rendered template, with a doubled
#: pair of braces in the instruction.
HUB_REPOSITORY = "hkust-nlp/SimpleRL-Zoo-Data"
HUB_FILE = "simplelr_qwen_level3to5/train.parquet"

#: Local file of MATH problems: a list with `problem`, `answer` and `difficulty`.
LOCAL_FILE = Path("math_train") / "train.json"

LEVELS = (3, 4, 5)
DATA_SOURCE = "math"

_CHATML_END = "<|im_end|>\n"
_CHATML_START = "<|im_start|>"

_SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct([("split", pa.string()), ("index", pa.int64()), ("level", pa.int64())]),
        ),
    ]
)


@dataclass(frozen=True)
class TrainingProblem:
    """One problem of the source.

    Attributes:
        row: Its row in the source, from 0; the prompt's `extra_info.index`.
        question: What is asked, blanks at its ends removed.
        answer: Gold answer; empty where the source has none.
        level: MATH's difficulty, 1 to 5; 0 where the source does not know it.
    """

    row: int
    question: str
    answer: str
    level: int


@dataclass(frozen=True)
class Counts:
    """How many problems came in, were left out by which rule, and stayed.

    Attributes:
        read: Problems of the source.
        other_levels: Not of `LEVELS`.
        without_answer: No gold answer.
        exact_duplicates: Exact duplicates of held-out problems.
        near_duplicates: Near duplicates of held-out problems.
        repeated: Exact duplicates of earlier problems of the source.
        kept: The rest.
    """

    read: int
    other_levels: int
    without_answer: int
    exact_duplicates: int
    near_duplicates: int
    repeated: int
    kept: int


def load_training_problems(data_dir: Path | None = None) -> list[TrainingProblem]:
    """All problems of the source, of every level.

    Args:
        data_dir: Folder that holds `LOCAL_FILE`; None loads SimpleRL-Zoo's set from the hub.

    Raises:
        ConfigError: If the source cannot be had, or a row lacks a field; names file and row.
    """
    if data_dir is None:
        where, rows, fields = f"hub dataset {HUB_REPOSITORY}, {HUB_FILE}", _hub_rows(), _hub_fields
    else:
        file = Path(data_dir) / LOCAL_FILE
        where, rows, fields = str(file), _file_rows(file), _local_fields
    problems = [_problem(number, row, fields, where) for number, row in enumerate(rows)]
    if not problems:
        raise ConfigError(f"{where} holds no problems; get the file anew")
    return problems


def _local_fields(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["problem"], row["answer"], row["difficulty"]


def _hub_fields(row: Mapping[str, Any]) -> tuple[str, str, float]:
    return row["question"], row["gt_answer"], row["level"]


def _problem(
    number: int,
    row: Mapping[str, Any],
    fields: Callable[[Mapping[str, Any]], tuple[str, str, float]],
    where: str,
) -> TrainingProblem:
    try:
        question, answer, level = fields(row)
        answer = "" if answer is None else gold_text(answer).strip()
        problem = TrainingProblem(number, question.strip(), answer, int(level))
        if not problem.question:
            raise ValueError("the question is empty")
        if level != problem.level:
            raise ValueError(f"level {level!r} is not a whole number")
        if cause := lone_surrogate(asdict(problem)):
            raise ValueError(cause)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        cause = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"{where}, row {number} is no MATH problem ({cause}); get the file that "
            "rsp_rl/data/math_training.py describes"
        ) from error
    return problem


def _file_rows(file: Path) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"training file {file} cannot be read ({error.strerror}); put it there, or give no "
            "--data-dir to load SimpleRL-Zoo's set from the hub"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{file} is damaged ({error}); get the file anew") from error
    if not isinstance(rows, list):
        raise ConfigError(f"{file} holds no list of problems; get the file anew")
    return rows


def _hub_rows() -> Iterable[Mapping[str, Any]]:
    import datasets  # slow to import, and not needed with local files

    try:
        return datasets.load_dataset(HUB_REPOSITORY, data_files=HUB_FILE, split="train")
    except Exception as error:  # the library's own, the hub's and the network's are of all kinds
        raise ConfigError(
            f"hub dataset {HUB_REPOSITORY}, {HUB_FILE} cannot be loaded: {error}; to use a local "
            f"file instead, give --data-dir with {LOCAL_FILE} in it"
        ) from error


def select(
    problems: Sequence[TrainingProblem], held_out: Iterable[str]
) -> tuple[list[TrainingProblem], Counts]:
    """Keep what training may see.

    Args:
        problems: All problems of the source.
        held_out: Questions that evaluation asks.

    Returns:
        The problems of `LEVELS` with an answer that neither `held_out` nor an earlier problem
        duplicates, in their order, and how many were left out by which rule. A problem counts
        under the first rule that applies, in the order of `Counts`.
    """
    finder = DuplicateFinder(held_out)
    seen: set[str] = set()
    kept = []
    out = dict.fromkeys(
        ("other_levels", "without_answer", "exact_duplicates", "near_duplicates", "repeated"), 0
    )
    for problem in problems:
        if problem.level not in LEVELS:
            out["other_levels"] += 1
        elif not problem.answer:
            out["without_answer"] += 1
        elif match := finder.match(problem.question):
            out[f"{match}_duplicates"] += 1
        elif (key := same_text_key(problem.question)) in seen:
            out["repeated"] += 1
        else:
            seen.add(key)
            kept.append(problem)
    return kept, Counts(read=len(problems), kept=len(kept), **out)


def chat_messages(template_name: str, question: str) -> list[dict[str, str]]:
    """The chat messages that a model's chat template renders as an evaluation template.

    Args:
        template_name: A template of `rsp_rl.data.templates` with turns: ChatML text such as
            `qwen-boxed`, or a chat template such as `llama-chat` (whose options, a date, then go
            into `data.apply_chat_template_kwargs`).
        question: The question.

    Raises:
        ConfigError: If the template is unknown or has no turns.
    """
    template = get_template(template_name)
    if isinstance(template, ChatTemplate):
        system, instruction = template.system, template.instruction
    elif isinstance(template, TextTemplate) and template.opening.startswith(_CHATML_START):
        # The opening is the system turn and the user's opened one.
        system = template.opening.split(_CHATML_END)[0].removeprefix(f"{_CHATML_START}system\n")
        instruction = template.instruction
    else:
        raise ConfigError(
            f"template {template_name!r} has no turns, and verl's prompts are chat messages; use "
            "qwen-boxed, qwen25-math-cot, llama-chat, chat or plain-chat"
        )
    messages = [] if system is None else [{"role": "system", "content": system}]
    return [*messages, {"role": "user", "content": question + instruction}]


def training_rows(problems: Iterable[TrainingProblem], template: str) -> Iterator[dict[str, Any]]:
    """Rows of verl's RL dataset; `extra_info.index` is the source's row, which seeds the draws."""
    for problem in problems:
        yield _row(
            DATA_SOURCE,
            chat_messages(template, problem.question),
            problem.answer,
            {"split": "train", "index": problem.row, "level": problem.level},
        )


def validation_rows(problems: Iterable[Problem], template: str) -> Iterator[dict[str, Any]]:
    """Rows of verl's RL dataset from the problems of a benchmark, which grades them by its name."""
    for index, problem in enumerate(problems):
        yield _row(
            problem.benchmark,
            chat_messages(template, problem.question),
            problem.gold,
            {"split": "validation", "index": index, "level": None},
        )


def _row(
    data_source: str, prompt: list[dict[str, str]], gold: str, extra_info: dict[str, Any]
) -> dict[str, Any]:
    return {
        "data_source": data_source,
        "prompt": prompt,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": extra_info,
    }


def evenly_spaced(problems: Sequence[Problem], size: int) -> list[Problem]:
    """A subset of the given size, spread evenly over the benchmark.

    Raises:
        ConfigError: If there are not that many problems, or none is asked for.
    """
    if not 1 <= size <= len(problems):
        raise ConfigError(f"validation size {size} must be 1 to {len(problems)}")
    return [problems[number * len(problems) // size] for number in range(size)]


def write_training_set(
    output: Path,
    problems: Sequence[TrainingProblem],
    validation: Sequence[Problem],
    held_out: Iterable[str],
    template: str,
) -> Counts:
    """Write `train.parquet`, `validation.parquet` and `counts.json`, each whole or not at all.

    Args:
        output: The folder, made if missing.
        problems: All problems of the source.
        validation: What training validates on.
        held_out: Questions that training must not see.
        template: See `chat_messages`.

    Raises:
        ConfigError: If nothing is left to train on, the output is a file, or a written file fails
            the check that training makes.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output {output} is a file; name a folder for the parquet files")
    kept, counts = select(problems, held_out)
    if not kept:
        raise ConfigError(f"no problem is left to train on: {asdict(counts)}")
    output.mkdir(parents=True, exist_ok=True)
    _write(output / "train.parquet", list(training_rows(kept, template)))
    _write(output / "validation.parquet", list(validation_rows(validation, template)))
    write_json(output / "counts.json", {"template": template, **asdict(counts)})
    return counts


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    partial = file.with_name(f".{file.stem}.{os.getpid()}.parquet")
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), partial)
        check_dataset(str(partial))
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
