"""The quick reader of arithmetic says the same as the library, wherever it says anything."""

import re

import pytest
from gold_answers import golds, needs_data

from rsp_rl.grading import units
from rsp_rl.grading.arithmetic import read_expression
from rsp_rl.grading.leaves import unwrap
from rsp_rl.grading.normalize import normalize
from rsp_rl.grading.points import POINTS, Unknown
from tests.unit.benchmark_files import EIGHT


def _value(text, index=0):
    return read_expression(text).at(index)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7),
        ("-2^{2}", -4),
        (r"\frac{1}{2}+\frac{1}{3}", 5 / 6),
        (r"2\frac{1}{2}", 2.5),
        (r"\sqrt[3]{-8}", -2),
        (r"\sqrt{2}\cdot\sqrt{8}", 4),
        ("|3-5|", 2),
        ("5!", 120),
        ("(1+i)^2", 2j),
        (r"e^{0}", 1),
        (r"\log_{2}(8)", 3),
        (r"\sin^{2}(1)+\cos^2(1)", 1),
        (r"\lfloor\frac{7}{2}\rfloor", 3),
        (r"\binom{5}{2}", 10),
    ],
)
def test_values(text, value):
    assert _value(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "1/2x",
        "2 3",
        r"\sin 2x",
        r"\sin^{-1}(x)",
        "f(x)",
        "2^3^2",
        "x!!",
        "1,2",
        r"\foo",
        "",
        "+",
        "(",
        "a=b",
        r"11\frac{6}{6}",
        "²",
        "1..2",
    ],
)
def test_what_is_not_certain_is_left_to_the_library(text):
    assert read_expression(text) is None


@pytest.mark.parametrize(
    "text", ["9^{9^{9}}", "(10^{9})!", r"(-2)^{\frac{1}{2}\pi}", r"2^{1000000}"]
)
def test_what_has_no_value_within_the_limits(text):
    with pytest.raises((Unknown, ZeroDivisionError)):
        _value(text)


@needs_data
@pytest.mark.parametrize("benchmark", EIGHT)
def test_agrees_with_the_library_on_the_golds(benchmark):
    from rsp_rl.grading import symbolic

    compared = 0
    for gold in golds(benchmark):
        text = unwrap(units.split(normalize(gold))[0])
        ours = read_expression(text)
        # Names that the library changes have other values there: indices, Greek letters, E and I.
        if ours is None or re.search(r"[_EI']|\\(?!frac|sqrt|pi)[a-zA-Z]|[a-zA-Z]{3}", text):
            continue
        try:
            theirs = symbolic._expression(symbolic._parse(text))
        except symbolic.Unreadable:
            continue
        for index in range(POINTS):
            try:
                x, y = complex(ours.at(index)), complex(theirs.at(index))
            except (Unknown, ZeroDivisionError, OverflowError):
                continue
            # Both in float64; terms that cancel may cost six digits.
            assert x == pytest.approx(y, rel=1e-9), gold
            compared += 1
    assert compared or benchmark in ("aime24", "amc23", "gsm8k")
