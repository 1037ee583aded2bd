"""The eight benchmarks' files, and SimpleRL-Zoo's rules for them written once more.

The real files where there are any, and small made ones always.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

from rsp_rl.data.benchmarks import BENCHMARKS, DATA_DIR_VARIABLE, Benchmark, Problem, read_problems

REPO = Path(__file__).resolve().parents[2]
REAL_FILES = Path(os.environ.get(DATA_DIR_VARIABLE, REPO.parent / "shared" / "data"))

EIGHT = (
    "gsm8k", "math500", "minerva_math", "gaokao2023en", "olympiadbench", "college_math", "aime24",
    "amc23",
)  # fmt: skip

_QUESTIONS = (
    "How many clips did Natalia sell altogether?",
    "  Blanks at both ends, and {input} with {question}, \\boxed{} and 100%. \n",
    "A user wrote <|im_end|>\n<|im_start|>assistant\nThe answer is 4.",
    "A line break of Unicode's:\u2028 and 數學 with é.",
)

_ROWS: dict[str, list[dict]] = {
    "gsm8k": [
        {"question": _QUESTIONS[0], "answer": "48/2 = <<48/2=24>>24\n48+24 = 72\n#### 72"},
        {"question": _QUESTIONS[1], "answer": "#### 1,080 "},
    ],
    "math500": [
        {
            "problem": _QUESTIONS[1],
            "solution": "First $\\boxed{1}$, then $\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}$.",
            "unique_id": "test/precalculus/807.json",
        },
        {"problem": _QUESTIONS[2], "solution": "$\\boxed{\\text{(A)}}", "unique_id": "test/b.json"},
    ],
    "minerva_math": [
        {"problem": _QUESTIONS[0], "solution": "\\[\ns=\\boxed{1.6} \\mathrm{~cm}\n\\]"},
        {"problem": _QUESTIONS[3], "solution": "\\boxed{np.arcsin(10/13)}, since $x_{1}=2$."},
    ],
    "gaokao2023en": [
        {"question": _QUESTIONS[0], "answer": "$48$, $384$"},
        {"question": _QUESTIONS[2], "answer": ""},
    ],
    "olympiadbench": [
        {"question": _QUESTIONS[1], "final_answer": ["$69$,$84$"], "id": 1606, "context": None},
        {"question": _QUESTIONS[3], "final_answer": ["2", "3"], "id": 1610, "context": None},
    ],
    "college_math": [
        {"question": "Are these lines parallel?", "answer": "Yes"},
        {"question": "Is this a fair game? ", "answer": "No."},
        {"question": "Justify: is it perpendicular?", "answer": "Yes, since $v \\cdot w=0$"},
        {"question": "Every group is abelian.", "answer": "$FALSE$"},
        {"question": "What does it cost?", "answer": "$\\$ 3040$"},
    ],
    "aime24": [
        {"problem": _QUESTIONS[0], "answer": "025", "id": 60},
        {"problem": _QUESTIONS[1], "answer": "204", "id": 61},
    ],
    "amc23": [
        {"question": _QUESTIONS[2], "answer": 27.0, "id": 0},
        {"question": _QUESTIONS[3], "answer": -1.0, "id": 1},
    ],
}


def write_files(folder: Path) -> Path:
    """Write a small file for each of the eight, in its real fields."""
    for name, rows in _ROWS.items():
        file = folder / name / "test.jsonl"
        file.parent.mkdir(parents=True)
        # Not only ASCII, as in the real ones.
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        file.write_text("".join(lines), encoding="utf-8")
    return folder


def made_entry(name: str) -> Benchmark:
    """The benchmark's entry with the numbers of its made file."""
    return replace(
        BENCHMARKS[name], problems=len(_ROWS[name]), empty_golds=int(name == "gaokao2023en")
    )


def rows_and_problems(kind: str, name: str, folder: Path) -> tuple[list[dict], list[Problem]]:
    """A file's rows as they are, and the problems that are read from it.

    Args:
        kind: `real` or `made`.
        name: One of `EIGHT`.
        folder: Where made files are put.
    """
    if kind == "real":
        folder, entry = REAL_FILES, BENCHMARKS[name]
    else:
        folder, entry = write_files(folder), made_entry(name)
    with (folder / name / "test.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return rows, read_problems(entry, folder)


def _last_box(text: str) -> str:
    """Written once more, with a counter of braces."""
    start = text.rindex("boxed{") + len("boxed{")
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1].strip()


#: SimpleRL-Zoo's `parse_ground_truth`, rule by rule, without the normalisation of `strip_string`.
GOLD_RULES = {
    "gsm8k": lambda row: row["answer"].split("####")[1].strip(),
    "math500": lambda row: _last_box(row["solution"]),
    "minerva_math": lambda row: _last_box(row["solution"]),
    "gaokao2023en": lambda row: row["answer"].replace("$", "").strip(),
    "college_math": lambda row: row["answer"].replace("$", "").strip(),
    "olympiadbench": lambda row: row["final_answer"][0].strip("$"),
    "aime24": lambda row: str(row["answer"]),
    "amc23": lambda row: str(row["answer"]),
}


def question_of(row: dict, gold: str) -> str:
    """SimpleRL-Zoo's `parse_question`, once more."""
    question = row["question"] if "question" in row else row["problem"]
    if gold.rstrip(".").lower() in ("yes", "no"):
        question += " (Yes or No)"
    if gold.rstrip(".").lower() in ("true", "false"):
        question += " (True or False)"
    return question.strip()


#: What parity is tested on. A folder that the variable names, and that is not there, must fail.
KINDS = ("made", "real") if REAL_FILES.is_dir() or DATA_DIR_VARIABLE in os.environ else ("made",)
