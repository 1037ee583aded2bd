"""GSM8K with its equations as steps, from files that you have: iCoT's form of it, or the plain one.

- iCoT's (arXiv 2405.14838), a `.txt`, a problem a line: `QUESTION||<<4-2=2>> <<2*3=6>> #### 6`. It
  is what Coconut trains on.
- the plain one, `question` and `answer` in a format of `rsp_rl.data.row_files`: the calculator's
  annotations in the answer, `<<48/2=24>>`, are the steps, and `#### 72` ends it.

With `--sentences` the steps are the plain form's lines without the annotations, for methods that
learn from whole chains (CCOT's, arXiv 2412.13171); every row has some.

A step keeps its marks, `<<48/2=24>>`, as in Coconut's files. Of the training set, rows are left out
and counted that have no steps, a calculation that is empty or not closed, more than blanks between
steps (in iCoT's form, where nothing else belongs there), or the question of another of the files;
too many that cannot be learnt from are an error. The other files keep theirs, without steps, for
left out they would be another benchmark. Nothing is calculated anew: how often the last step's
result is not the answer is said.

``python -m rsp_rl.data.gsm8k_steps --train FILE --output DIR`` writes `train.jsonl`, and likewise
`--validation` and `--heldout`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.made_steps import SPLITS
from rsp_rl.data.near_duplicates import same_text_key
from rsp_rl.data.step_problems import StepProblem, step_problem, write_step_problems

MAX_LEFT_OUT = 0.05
"""Share of a training set's rows that may be without steps; of GSM8K's own 1.3 % are."""

_BAR, _HASHES = "||", "####"
_EQUATION = re.compile(r"<<[^<>]*>>")

#: Of thousands; others are the answer's own.
_COMMAS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass
class Reading:
    """What a file's rows were.

    Attributes:
        problems: Those with steps, and the others without if they were to be kept, in the file's
            order.
        stepless: By cause, how many have no steps that can be used.
        first: By cause, where the first of them is.
        rows: All of them.
        unlike: Of those with steps, how many have a last one whose result is not the answer.
    """

    problems: list[StepProblem] = field(default_factory=list)
    stepless: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    unlike: int = 0


def read_gsm8k(
    file: Path | str,
    setting: str = "--train",
    *,
    needs_steps: bool = True,
    max_left_out: float = MAX_LEFT_OUT,
    sentences: bool = False,
) -> Reading:
    """The problems of a file, each with its equations as steps.

    Args:
        file: Of one of the two forms.
        setting: What an error calls it.
        needs_steps: Whether rows without steps are left out.
        max_left_out: Share of the rows, 0 to 1, that may be.
        sentences: Take the lines without equations' marks as steps; iCoT's form has none.

    Raises:
        ConfigError: If the file cannot be read, a row is of neither form, or more of them than that
            are left out: naming file, row or line, cause and mend.
    """
    if not 0 <= max_left_out <= 1:
        raise ConfigError(f"--max-left-out {max_left_out} is no share of the rows: 0 to 1")
    if sentences and Path(file).suffix.lower() == ".txt":
        raise ConfigError(f"--sentences: iCoT's form, {setting} {file}, has equations alone")
    reading = Reading()
    for place, question, solution, answer in _solutions(Path(file).expanduser(), setting):
        reading.rows += 1
        equations = _EQUATION.findall(solution)
        steps = _sentences(solution) if sentences else equations
        if sentences:
            cause = None if steps else "no steps"
        else:
            cause = _cause(steps, solution, Path(file).suffix.lower() == ".txt")
        if cause:
            reading.stepless[cause] = reading.stepless.get(cause, 0) + 1
            reading.first.setdefault(cause, place)
            if needs_steps:
                continue
            steps = []
        row = {"question": question, "steps": steps, "answer": _COMMAS.sub("", answer)}
        reading.problems.append(step_problem(row, place, needs_steps))
        last = equations[-1:] if steps else []
        reading.unlike += bool(last) and not _same_number(last[0], row["answer"])
    if not reading.rows:
        raise ConfigError(f"dataset {file} has no rows; get it anew")
    out = reading.rows - len(reading.problems)
    if not reading.problems or out > max_left_out * reading.rows:
        raise ConfigError(
            f"dataset {file}: {out:,} of {reading.rows:,} rows cannot be learnt from "
            f"({_causes(reading)}), and {max_left_out:.1%} may be left out; get the file whose "
            "answers hold <<equations>>, or raise --max-left-out"
        )
    return reading


def _sentences(solution: str) -> list[str]:
    """Lines of a solution without the calculator's annotations."""
    lines = _EQUATION.sub("", solution).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _cause(steps: Sequence[str], solution: str, alone: bool) -> str | None:
    """Why a row has no steps that can be used, if so; `alone`: nothing stands between them."""
    if solution.count("<<") != len(steps) or not all(step[2:-2].strip() for step in steps):
        return "a calculation that is empty or not closed"
    if not steps:
        return "no steps"
    if alone and _EQUATION.sub("", solution).strip():
        return f"more than equations between {_BAR} and {_HASHES}"
    return None


def _solutions(file: Path, setting: str) -> Iterator[tuple[str, str, str, str]]:
    """Place, question, text with the steps, and answer of each row."""
    if file.suffix.lower() == ".txt":
        yield from _lines(file, setting)
        return
    from rsp_rl.data.row_files import data_files, read_rows  # pyarrow

    [found] = data_files(str(file), setting)
    for number, row in enumerate(read_rows(found)):
        place = f"dataset {found}, row {number}"
        question, answer = row.get("question"), row.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            raise ConfigError(
                f"{place}: no text as 'question' and 'answer', of which GSM8K's rows are; it has "
                f"{list(row)}. If it has steps already, it needs no conversion"
            )
        yield place, question, *_solved(answer, place)


def _lines(file: Path, setting: str) -> Iterator[tuple[str, str, str, str]]:
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"dataset {file} cannot be read: {error.strerror}; check {setting}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"dataset {file} is not UTF-8: {error}; write it anew") from error
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"dataset {file}, line {number}"
        question, bar, solution = line.partition(_BAR)
        if not bar:
            raise ConfigError(
                f"{place}: no {_BAR} after the question, {line!r:.60}; iCoT's lines are "
                f"QUESTION{_BAR}<<equation>> <<equation>> {_HASHES} ANSWER"
            )
        yield place, question, *_solved(solution, place)


def _solved(text: str, place: str) -> tuple[str, str]:
    """What stands before the answer, and it."""
    solution, hashes, answer = text.rpartition(_HASHES)
    if not hashes:
        raise ConfigError(
            f"{place}: no {_HASHES} before an answer, {text!r:.60}; mend or drop the row"
        )
    return solution, answer.strip()


def _same_number(equation: str, answer: str) -> bool:
    """Whether an equation's right side is the answer, if both are plain numbers."""
    result = equation.removesuffix(">>").rpartition("=")[2]
    try:
        return abs(float(result.replace(",", "")) - float(answer)) < 1e-6
    except ValueError:
        return False


def _causes(reading: Reading) -> str:
    return "; ".join(
        f"{cause}: {count:,}, first {reading.first[cause]}"
        for cause, count in reading.stepless.items()
    )


def _not_asked_in(
    others: Sequence[StepProblem], problems: Sequence[StepProblem]
) -> list[StepProblem]:
    """Those whose question none of the others asks, blanks and case apart."""
    asked = {same_text_key(problem.question) for problem in others}
    return [problem for problem in problems if same_text_key(problem.question) not in asked]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; bad input ends with one message and exit status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m rsp_rl.data.gsm8k_steps",
        description="Write GSM8K as files of questions and steps, from its own or iCoT's files.",
    )
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, help=f"what {split}.jsonl is made of")
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument(
        "--max-left-out",
        type=float,
        default=MAX_LEFT_OUT,
        help="share of the training set; default: %(default)s",
    )
    parser.add_argument(
        "--sentences", action="store_true", help="steps are lines without their <<equations>>"
    )
    args = parser.parse_args(argv)
    files = {split: file for split in SPLITS if (file := getattr(args, split))}
    if not files:
        parser.error("name a file: --train, --validation or --heldout")
    if args.output.exists() and not args.output.is_dir():
        parser.error(f"output {args.output} is a file: name a folder for the files")
    try:
        read = {
            split: read_gsm8k(
                file,
                f"--{split}",
                needs_steps=split == "train",
                max_left_out=args.max_left_out,
                sentences=args.sentences,
            )
            for split, file in files.items()
        }
        problems = {split: reading.problems for split, reading in read.items()}
        if "train" in problems:
            others = [p for split, found in problems.items() if split != "train" for p in found]
            problems["train"] = _not_asked_in(others, problems["train"])
            if not problems["train"]:
                raise ConfigError(
                    f"every question of --train {files['train']} is asked in another file too; "
                    "name different files"
                )
        for split, found in problems.items():
            file = args.output / f"{split}.jsonl"
            write_step_problems(file, found, needs_steps=split == "train")
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for split, reading in read.items():
        notes = [
            f"{split}: {args.output / f'{split}.jsonl'}, {len(problems[split]):,} of "
            f"{reading.rows:,} rows"
        ]
        if reading.stepless:
            kept = "left out" if split == "train" else "kept without steps"
            notes.append(f"{kept}: {_causes(reading)}")
        if asked := len(reading.problems) - len(problems[split]):
            notes.append(f"left out as another file asks it: {asked:,}")
        notes.append(f"last step's result is not the answer: {reading.unlike:,}")
        print("; ".join(notes), file=sys.stderr)


if __name__ == "__main__":
    main()
