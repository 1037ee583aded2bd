"""Every gold answer of the eight benchmarks, written back in each form of the chain, is right."""

import re
from itertools import pairwise

import pytest
from gold_answers import gold_of_row, golds, needs_data
from math_verify_disagreements import DISAGREEMENTS

from rsp_rl.grading import grade, is_correct
from tests.unit.benchmark_files import EIGHT

pytestmark = needs_data

FORMS = {
    "minerva": "Since 3 < 4.\nFinal Answer: The final answer is $%s$. I hope it is correct.",
    "boxed": "We had \\boxed{0} first. Since $3 < 4$, we get $x = \\boxed{%s}$.",
    "answer_is": "It is not 17. The answer is $%s$.",
    "final_answer_is": "It is not 17.\nThe final answer is %s",
}
NUMBER = re.compile(r"-?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?(e-?\d+)?", re.ASCII)


@pytest.mark.parametrize("benchmark", EIGHT)
def test_each_form_of_each_gold_is_right(benchmark):
    wrong = []
    for gold in golds(benchmark):
        forms = dict(FORMS)
        if NUMBER.fullmatch(gold):
            forms["last_number"] = "First 3 + 4 = 7, and then %s."
        for step, form in forms.items():
            verdict = grade(form % gold, gold, benchmark)
            if not verdict or verdict.extraction_step != step:
                wrong.append((step, gold, verdict))
    assert not wrong


@pytest.mark.parametrize("benchmark", ["math500", "gaokao2023en", "olympiadbench", "aime24"])
def test_each_gold_differs_from_the_next(benchmark):
    """Distinct golds are rarely equal: those that are, are listed here."""
    same = {
        ("-2", "\\{-2\\}"),
        ("\\frac{4}{5}", "0.8"),
    }
    found = {
        (a, b)
        for a, b in pairwise(golds(benchmark))
        if is_correct(a, b) and float_or_none(a) != float_or_none(b)
    }
    assert found <= same


def float_or_none(text):
    try:
        return float(text)
    except ValueError:
        return None


def test_an_empty_gold_is_never_right():
    for answer in ("5", "", "\\boxed{}", "x"):
        assert not grade(answer, "")
        assert not is_correct(answer, " ")


@pytest.mark.parametrize(("benchmark", "row", "other", "verdict", "reason"), DISAGREEMENTS)
def test_disagreements_with_math_verify_are_decided(benchmark, row, other, verdict, reason):
    everything = golds(benchmark)
    gold = gold_of_row(benchmark, row)
    following = everything[(everything.index(gold) + 1) % len(everything)]
    assert bool(is_correct(gold if other == "itself" else following, gold)) is verdict, reason
