"""Changes of distributions over too few problems: no interval over one, no value over none."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from rsp_rl.analysis.distribution_changes import EARLY, FADED, LATE, changes, shown, to_csv

METRICS = ("entropy", "top1")


def of(*numbers: float) -> tuple[np.ndarray, np.ndarray]:
    early, late = np.reshape(np.array(numbers), (2, 2))
    return early, late


def test_one_shared_problem_has_no_interval() -> None:
    found = changes({"a": of(3, 1, 2, 1), "b": of(9, 9, 9, 9)}, {"a": of(1, 1, 1, 1)})
    assert [e.value for e in found[EARLY]] == [2.0, 0.0]
    assert [e.value for e in found[LATE]] == [1.0, 0.0]
    assert [e.value for e in found[FADED]] == [0.5, 0.0]
    assert all(math.isnan(e.low) and math.isnan(e.high) for of in found.values() for e in of)
    assert shown(found[EARLY][0]) == "+2.0000"
    text = to_csv({"gsm8k": {"soft": found}}, METRICS)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["change"], row["low"], row["high"]) for row in rows[:2]] == [
        ("2.0", "", ""),
        ("0.0", "", ""),
    ]


def test_no_shared_problem_has_no_change() -> None:
    found = changes({"a": of(3, 1, 2, 1)}, {"b": of(1, 1, 1, 1)})
    assert {shown(e) for of in found.values() for e in of} == {"–"}
    assert "nan" not in to_csv({"gsm8k": {"soft": found}}, METRICS)


def test_two_problems_have_an_interval() -> None:
    found = changes({"a": of(3, 1, 2, 1), "b": of(1, 1, 1, 1)}, dict.fromkeys("ab", of(1, 1, 1, 1)))
    assert found[EARLY][0].value == pytest.approx(1.0)
    assert (found[EARLY][0].low, found[EARLY][0].high) == (0.0, 2.0)
    assert shown(found[EARLY][0]) == "+1.0000 [+0.0000, +2.0000]"
