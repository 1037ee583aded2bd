"""The gold answers of the eight benchmarks, read from the shared data folder where there is one."""

import json
import os
from pathlib import Path

import pytest

from rsp_rl.grading.extraction import from_box

REPO = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("RSP_RL_DATA_DIR", REPO.parent / "shared" / "data"))
BENCHMARKS = (
    "gsm8k", "math500", "minerva_math", "gaokao2023en", "college_math", "olympiadbench", "aime24",
    "amc23",
)  # fmt: skip

if "RSP_RL_DATA_DIR" in os.environ and not DATA.is_dir():
    raise NotADirectoryError(f"RSP_RL_DATA_DIR is {DATA}, which is no folder; unset or mend it")
needs_data = pytest.mark.skipif(
    not DATA.is_dir(),
    reason="the benchmarks' files are not ours to ship; RSP_RL_DATA_DIR may name a folder of them",
)


def golds(benchmark: str) -> list[str]:
    """The distinct gold answers of a benchmark that are not empty, in the order of the file."""
    return list(dict.fromkeys(gold for gold in map(READERS[benchmark], _rows(benchmark)) if gold))


def gold_of_row(benchmark: str, row: int) -> str:
    """The gold answer of a row of the benchmark's file."""
    return READERS[benchmark](_rows(benchmark)[row])


def _rows(benchmark: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / benchmark / "test.jsonl").open()]


def _last_box(text: str) -> str:
    """What the last box holds, ``""`` if there is none."""
    found = from_box(text)
    return found.text if found else ""


def _answer_without_dollars(row: dict) -> str:
    return row["answer"].strip("$").strip()


READERS = {
    "gsm8k": lambda row: row["answer"].rpartition("####")[2].strip(),
    "math500": lambda row: row["answer"],
    "minerva_math": lambda row: _last_box(row["solution"]),
    "gaokao2023en": _answer_without_dollars,
    "college_math": _answer_without_dollars,
    "olympiadbench": lambda row: row["final_answer"][0].strip("$"),
    "aime24": lambda row: str(row["answer"]),
    "amc23": lambda row: str(row["answer"]),
}
