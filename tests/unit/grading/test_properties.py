"""Properties that hold for every text."""

import time

import pytest
from gold_answers import golds, needs_data
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.grading import extract_answer, grade, grader, is_correct
from rsp_rl.grading.normalize import normalize
from tests.properties import examples
from tests.unit.benchmark_files import EIGHT

PIECES = st.sampled_from(
    [
        r"\frac",
        r"\sqrt",
        r"\left(",
        r"\right)",
        r"\boxed{",
        r"\text{",
        r"\pi",
        r"\infty",
        r"\cup",
        r"\pm",
        r"\le",
        r"\{",
        r"\}",
        r"\begin{pmatrix}",
        r"\end{pmatrix}",
        r"\\",
        r"\%",
        r"\$",
        r"$",
        r"{",
        r"}",
        r"(",
        r")",
        r"[",
        r"]",
        r",",
        r";",
        r":",
        r".",
        r"=",
        r"<",
        r">",
        r"+",
        r"-",
        r"*",
        r"/",
        r"^",
        r"_",
        r"!",
        r"|",
        r"&",
        r"'",
        r"x",
        r"y",
        r"i",
        r"e",
        r"0",
        r"1",
        r"2",
        r"12",
        r"0.5",
        r"1,000",
        r"and",
        r"or",
        r"yes",
        r"the_answer_is",
        r"final_answer_is",
        r"I_hope",
        r"cm",
    ]
)
LATEX = st.lists(PIECES, max_size=25).map(
    lambda parts: " ".join(parts).replace("_answer", " answer")
)
SYMBOLS = st.text("\\{}()[]0123456789.^_$,;abceinx+-*/=<>|!'%&: ", max_size=40)
ANY_TEXT = st.one_of(st.text(max_size=200), LATEX, SYMBOLS)
INTEGERS = st.integers(-(10**6), 10**6)


@given(output=ANY_TEXT, gold=ANY_TEXT)
@examples(300)
def test_never_raises_and_always_says_something(output, gold):
    started = time.process_time()
    verdict = grade(output, gold)
    assert isinstance(bool(verdict), bool)
    assert verdict.extracted == extract_answer(output).text
    assert time.process_time() - started < 1


@given(prediction=ANY_TEXT, gold=ANY_TEXT)
@examples(500)
def test_nothing_raises_beneath_the_guard(prediction, gold):
    """`is_correct` catches what should never happen; this must not be what makes it total."""
    grader._judge(prediction, gold)


@given(text=ANY_TEXT)
@examples(200)
def test_every_answer_equals_itself(text):
    assert bool(is_correct(text, text)) is bool(text.strip())


@given(a=ANY_TEXT, b=ANY_TEXT)
@examples(100)
def test_normalisation_does_not_change_a_verdict(a, b):
    if normalize(a) and normalize(b) and is_correct(a, b):
        assert is_correct(normalize(a), normalize(b))


@given(a=INTEGERS, b=INTEGERS)
@examples(200)
def test_integers_are_equal_exactly_and_symmetrically(a, b):
    assert bool(is_correct(str(a), str(b))) is (a == b)
    assert bool(is_correct(f"{a:,}", f"{b}.0")) is (a == b)


@given(p=INTEGERS, q=st.integers(1, 999), r=INTEGERS, s=st.integers(1, 999))
@examples(200)
def test_fractions_are_equal_exactly_and_symmetrically(p, q, r, s):
    left, right = f"\\frac{{{p}}}{{{q}}}", f"{r}/{s}"
    assert bool(is_correct(left, right)) is bool(is_correct(right, left)) is (p * s == r * q)


@given(a=st.floats(-1e6, 1e6), b=st.floats(-1e6, 1e6))
@examples(200)
def test_decimals_are_symmetric(a, b):
    left, right = f"{a:.6f}", f"{b:.6f}"
    assert bool(is_correct(left, right)) is bool(is_correct(right, left))


@given(items=st.lists(st.integers(-99, 99), min_size=2, max_size=5), data=st.data())
@examples(100)
def test_sets_have_no_order_and_tuples_have(items, data):
    shuffled = data.draw(st.permutations(items))
    text, other = ", ".join(map(str, items)), ", ".join(map(str, shuffled))
    assert is_correct(f"\\{{{other}\\}}", text)
    assert bool(is_correct(f"({other})", f"({text})")) is (items == shuffled)


@needs_data
@pytest.mark.parametrize("benchmark", EIGHT)
def test_golds_do_not_mind_their_dress(benchmark):
    """White space, \\left and \\right, boxes and dollars around a gold change nothing."""
    for gold in golds(benchmark)[:150]:
        if "\n" in gold or "$" in gold or "\\left" in gold:
            continue
        dressed = gold
        if "[" not in gold and "]" not in gold and gold.count("(") == gold.count(")"):
            dressed = gold.replace("(", "\\left(").replace(")", "\\right)")
        assert is_correct(f"  {dressed} ", gold)
        assert is_correct(f"$\\displaystyle {dressed}$.", gold)
        assert grade(f"\\boxed{{ {dressed} }}", gold)
