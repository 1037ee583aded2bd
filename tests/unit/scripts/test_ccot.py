"""The table of CCOT's bench, from results that were made up."""

from __future__ import annotations

from typing import Any

import pytest
from ccot import Judged, difference, summarise, table


def judged(*right: bool, thoughts: int = 0, seconds: float = 0.25) -> list[Judged]:
    return [Judged(one, thoughts, thoughts + 3, seconds) for one in right]


def result(*right: bool, thoughts: int = 0, **more: Any) -> dict[str, Any]:
    of = {"state_errors": {}, "reads_as_gold": {}, "cut_off": 0.0, **more}
    return {"judged": [vars(one) for one in judged(*right, thoughts=thoughts)], **of}


def test_a_difference_is_of_means_over_seeds() -> None:
    none = [judged(False, False), judged(False, False)]
    assert difference(none, [judged(True, True), judged(True, True)]) == "+100.0 [+100.0, +100.0]"
    assert difference(none, [judged(True, False), judged(False, True)]) == "+50.0 [+50.0, +50.0]"


def test_rows() -> None:
    some = {"state_errors": {"1": 0.5, "2": 0.25}, "reads_as_gold": {"given gold": 1.0, "own": 0.5}}
    found = {
        0.0: [result(False, False)],
        0.1: [
            result(True, True, thoughts=2, **some),
            result(True, True, thoughts=4, **some, cut_off=0.5),
        ],
    }
    head, line, *rows = table(judged(True, True), found).splitlines()
    assert head.count("|") == line.count("|") == rows[0].count("|")
    cells = [row.removeprefix("| ").removesuffix(" |").split(" | ") for row in rows]
    assert cells == [
        [
            *("chain in words", "-", "1.000 [1.000, 1.000]", "-", "-", "3.0", "0.250"),
            *("-", "-", "-"),
        ],
        [
            *("CCOT r = 0", "0.0", "0.000 [0.000, 0.000]", "0.000", "-", "3.0", "0.250"),
            *("-", "-", "-"),
        ],
        [
            *("CCOT r = 0.1", "3.0", "1.000 [1.000, 1.000]", "1.000 1.000"),
            *("+100.0 [+100.0, +100.0]", "6.0", "0.250", "0.500 0.250", "1.000 / 0.500", "25%"),
        ],
    ]


def test_one_run() -> None:
    summary = summarise([judged(True, True, False, True, thoughts=2)])
    assert (summary.accuracy, summary.thoughts, summary.tokens) == (0.75, 2, 5)
    assert summary.accuracy_low < 0.75 < summary.accuracy_high


def test_runs_are_averaged_by_problem() -> None:
    """Two runs that are right on other halves: each problem's mean is a half, without spread."""
    summary = summarise([judged(True, False), judged(False, True, thoughts=4, seconds=1.25)])
    assert (summary.accuracy, summary.accuracy_low, summary.accuracy_high) == (0.5, 0.5, 0.5)
    assert (summary.thoughts, summary.tokens) == (2, 5)
    assert summary.seconds_per_problem == pytest.approx(0.75)
