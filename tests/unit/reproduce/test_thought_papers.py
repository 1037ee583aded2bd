"""The talks' tables, line by line where their text is at hand, and what their numbers are of."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from rsp_rl.analysis.law_table import RIGHT_TOKENS
from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.reproduce.thought_papers import NUMBERS, TABLES

REPO = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("RSP_RL_SHARED", REPO.parent / "shared"))
TEXT = SHARED / "seeds" / "latent_reasoning_slides.txt"


@pytest.mark.skipif(
    not TEXT.is_file(), reason="the talks' text is not at hand; RSP_RL_SHARED names its folder"
)
@pytest.mark.parametrize("table", [table for tables in TABLES.values() for table in tables])
def test_every_line_of_numbers_is_the_text_s(table: object) -> None:
    text = re.sub(r"</?b>", "", TEXT.read_text(encoding="utf-8"))
    printed = Counter(" ".join(line.split()) for line in text.splitlines())
    for line in table.lines:
        assert printed[line], line


def test_a_number_is_there_once() -> None:
    keys = Counter((number.source, number.model, number.quantity) for number in NUMBERS)
    assert set(keys.values()) == {1}


def test_their_benchmarks_are_ours() -> None:
    assert (
        {number.quantity.benchmark for number in NUMBERS}
        == {
            "math500",
            "aime24",
            "gsm8k",
            "amc23",
        }
        <= BENCHMARKS.keys()
    )


@pytest.mark.parametrize(
    ("source", "model", "condition", "benchmark", "metric", "value"),
    [
        ("arXiv 2505.15778", "QwQ-32B", "soft_thinking", "aime24", "accuracy", 0.8333),
        ("arXiv 2505.15778", "QwQ-32B", "sampled", "math500", RIGHT_TOKENS, 4156),
        ("arXiv 2508.03440", "Skywork-OR1-32B", "gumbel", "amc23", "accuracy", 0.9859),
        (
            *("arXiv 2508.03440", "DeepSeek-R1-Distill-Qwen-32B"),
            *("soft_thinking", "aime24", "accuracy", 0.62),
        ),
    ],
)
def test_numbers(
    source: str, model: str, condition: str, benchmark: str, metric: str, value: float
) -> None:
    (found,) = [
        number.value
        for number in NUMBERS
        if (number.source, number.model) == (source, model)
        and number.quantity.condition == condition
        and number.quantity.benchmark == benchmark
        and number.quantity.metric == metric
    ]
    assert found == pytest.approx(value)
