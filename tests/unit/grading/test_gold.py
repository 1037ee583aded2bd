"""What a gold must be: its text, why none can match it, and whether it is read as mathematics."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.grading.gold import TRIED, gold_problem, gold_text, readable
from rsp_rl.grading.grader import grade
from rsp_rl.grading.reward import compute_score


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("84", "84"),
        (" 84", " 84"),
        (84, "84"),
        (8.5, "8.5"),
        (Decimal("8.50"), "8.50"),
        (["84"], "84"),
        (("84",), "84"),
        ([[84]], "84"),
        (np.array(["84"]), "84"),
        (np.array(84), "84"),
        (np.int64(84), "84"),
        (np.str_("84"), "84"),
        (torch.tensor([84]), "84"),
    ],
)
def test_the_one_text_of_a_value(value: Any, text: str) -> None:
    assert gold_text(value) == text
    assert compute_score("any", f"\\boxed{{{text}}}", value)["acc"] == 1.0


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        np.bool_(True),
        float("nan"),
        float("-inf"),
        Decimal("NaN"),
        np.float32("nan"),
        1j,
        [],
        ["8", "4"],
        [None],
        np.array([1, 2]),
        {"answer": "84"},
        {"84"},
        b"84",
        object(),
    ],
)
def test_values_without_one_text(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        gold_text(value)
    with pytest.raises(ValueError, match=r"\w"):
        compute_score("any", "84", value)


@given(st.text(max_size=60))
def test_a_gold_that_is_let_pass_is_matched_by_its_own_box(text: str) -> None:
    """Where it can stand in one: braces and boxes of its own end the box early."""
    if gold_problem(text) is None and not set(text) & set("\\{}$"):
        assert grade(f"It is \\boxed{{{text}}}.", text)


@given(st.text("[]{}'\"#\\boxed 1,:", max_size=40))
def test_any_gold_is_looked_at(text: str) -> None:
    gold_problem(text)


def test_how_many_are_readable() -> None:
    golds = ["7", r"\frac{1}{3}", "x^2", "east", r"\text{October 30}"]
    assert readable(golds) == (4, 5, [r"\text{October 30}"])
    assert readable([str(number) for number in range(3 * TRIED)]) == (TRIED, TRIED, [])
