"""Whatever a model writes, grading ends soon, raises nothing and executes nothing."""

import gc
import time
from collections.abc import Iterator

import pytest

from rsp_rl.grading import grade, is_correct, pool

LIMIT = 1.0  # seconds of processor time of this process and of a worker, for one answer

EXPENSIVE = {
    "tower": "9^{9^{9^{9^{9}}}}",
    "python tower": "9**9**9**9**9",
    "powers of ten": "10^{10^{10}}",
    "long power": "2^" * 1500 + "2",
    "factorials": "(((((10!)!)!)!)!)",
    "factorial": "99999999!",
    "binomial": r"\binom{1000000}{500000}",
    "big binomial expression": r"\binom{9999+9999}{9999}",
    "polynomial": "((x+1)^{50}+1)^{50}",
    "huge exponent": "1.0000001^{99999999}",
    "huge sine": r"\sin(10^{1000})",
    "tower of e": "e^{e^{e^{e^{e}}}}",
    "sum": r"\sum_{n=1}^{10^{10}} n",
    "product": r"\prod_{n=1}^{100000} n",
    "determinant": r"\det\begin{pmatrix}"
    + r"\\".join(["&".join(["x"] * 12)] * 12)
    + r"\end{pmatrix}",
    "identity matrix": r"\operatorname{eye}(100000)",
    "zero matrix": r"\operatorname{zeros}(100000,100000)",
}
LONG = {
    "digits": "1" * 1_000_000,
    "letters": "a" * 1_000_000,
    "spaces": " " * 1_000_000,
    "dollars": "$" * 1_000_000,
    "list": "1," * 500_000,
    "boxes": "\\boxed{" * 50_000,
    "empty boxes": "\\boxed{}" * 100_000,
    "phrases": "the answer is " * 70_000,
    "minerva starts": "final answer is $" * 50_000 + "$. I hope",
    "open braces": "{" * 10_000,
    "close braces": "}" * 10_000,
    "nested braces": "{" * 5_000 + "5" + "}" * 5_000,
    "nested parentheses": "(" * 1_900 + "1" + ")" * 1_900,
    "brackets": "[" * 3_000,
    "nested fractions": "\\frac{1}{" * 400 + "1" + "}" * 400,
    "nested roots": "\\sqrt{" * 500 + "2" + "}" * 500,
    "nested sets": "\\{" * 300 + "1" + "\\}" * 300,
    "nested text": "\\text{" * 500 + "a" + "}" * 500,
    "left right": "\\left(" * 180 + "x" + "\\right)" * 180,
    "terms": "+".join(["x"] * 1_900),
    "signs": "-" * 1_000 + "1",
    "plus-minus": "\\pm" * 300 + "1",
    "pairs": "(1,2)," * 650,
    "unions": "\\cup".join(["(1,2)"] * 390),
    "inequality": "<".join("x" * 1_900),
    "equality": "=".join("x" * 1_900),
    "bars": "|" * 2_001,
    "primes": "x" + "'" * 2_000,
    "indices": "_" * 2_000,
    "backslashes": "\\" * 3_999,
    "ampersands": "&" * 3_000,
    "commas and numbers": "1,000," * 570,
    "spaced numbers": "1 000 " * 600,
    "mixed numbers": "1\\frac{1}{2}" * 330,
    "matrix row": "\\begin{pmatrix}" + "1&" * 1_800 + "1\\end{pmatrix}",
    "matrix starts": "\\begin{pmatrix}" * 250,
    "overlines": "\\overline{" * 300 + "3" + "}" * 300,
    "mathrm": "\\mathrm{a}" * 390,
    "thoughts": "</think>" * 100_000,
    "four hashes": "#### 1\n" * 100_000,
    "headings": "#### a\n" * 100_000,
    "questions": "#### 1\nQ: 2\n" * 50_000,
    "placeholders": "\\boxed{answer}" * 50_000,
    "joined boxes": "\\boxed{1} or " * 50_000,
    "round roots": "sqrt(" * 790,
    "round roots, closed": "\\sqrt(" + "(x)" * 1_300,
    "quotes": "'a" * 1_900,
    "quotes of TeX": "`" * 3_900,
    "printed list": "['" + "1','" * 900 + "']",
    "open list": "['" + " " * 3_900 + "]",
    "escapes in a list": "['" + "\\\\" * 1_900 + "]",
    "verbatim": "\\verb|" * 600,
    "markup": "</b" * 1_300,
    "qualifiers": "for all x " * 390,
    "bounds": "x,c>0" * 790,
    "angles": "1^\\circ 1' " * 350,
    "cycles": "0." + "12" * 100 + "...",
    "many cycles": "0.3\\dot{3}" * 390,
    "counted": "1 \\text{ a and } " * 240,
    "text of joiners": "\\text{" + "and " * 900 + "} 1",
    "approximations": "1 \\text{ or about } " * 190,
    "complex": "1+-" * 1_300 + "1i",
    "full width": "５" * 200_000,
    "marks nobody sees": "\u200b" * 1_000_000,
    "fractions in one character": "⅞" * 1_900,
    "eaten backslashes": "\x0crac" * 30_000,
    "tags": "<answer>" * 30_000,
    "closed tags": "<answer>1</answer>" * 8_000,
    "tokens": "<|a|>" * 40_000,
    "denied boxes": "not \\boxed{1}, " * 8_000,
    "hopes": "final answer is 5. I hope " * 8_000,
    "choices": "correct option is " * 8_000,
    "blanks": "1" + " \n" * 1_900 + "2",
    "pieces": "\\begin{cases}" + "1&2\\\\" * 550 + "\\end{cases}",
    "combinations": "5C2 " * 970,
    "excepted": "\\mathbb{R}\\setminus\\{" + "1," * 1_900 + "\\}",
}
MALFORMED = [
    "\x00\x01",
    "\ud800",
    "\U0001f4a9" * 100,
    "١٢٣",
    "²",
    "½½½",
    "−−−−5",
    "%",
    "--",
    "1/0",
    "0/0",
    r"\frac{0}{0}",
    r"\frac10",
    r"\infty-\infty",
    "0^0",
    r"\log 0",
    r"\log_1 5",
    r"5 \mod 0",
    "(-5)!",
    r"\binom{5}{-1}",
    r"\sqrt[0]{5}",
    r"\sqrt[x]{5}",
    "1e999999999",
    "1e-999999999",
    "0x41",
    "1_000",
    "5!!",
    "\\boxed",
    "\\fbox{",
    "\\frac",
    "\\frac{",
    "\\frac{1",
    "\\sqrt",
    "\\sqrt[",
    "\\left",
    "\\right",
    "^",
    "_",
    "{",
    "}",
    "$",
    "\\",
    "\\(",
    "\\[",
    "the answer is",
    "final answer is $",
    ".",
    ".,;:",
    "=",
    "x=",
    "=5",
    "x==5",
    "<",
    "x<",
    ":",
    "a:b",
    "()",
    "[]",
    r"\{\}",
    "(,)",
    ",",
    ",,",
    "&",
    "\\begin{pmatrix}\\end{pmatrix}",
    "\\begin{array}{c}",
    r"\text{}",
    r"\pm",
    r"\cup",
    "||",
    "!",
    "'",
]
RECURSIVE = [
    r"\def\a{\a\a}\a", r"\newcommand{\x}{\x\x}\x", r"\let\a=\a \a", r"\input{/etc/passwd}",
    r"\csname a\endcsname",
]  # fmt: skip


def _injections(marker):
    calls = (
        f"__import__('os').system('touch {marker}')",
        f"open('{marker}','w').write('x')",
        f"exec(\"open('{marker}','w')\")",
        "().__class__.__bases__[0].__subclasses__()",
        "(lambda: (_ for _ in ()).throw(SystemExit))()",
        f"[open('{marker}','w') for x in (1,)]",
    )
    wrappers = (
        "{}", r"\pi+{}", r"\text{{{}}}", "f({})", "x_{{{}}}", r"\operatorname{{{}}}(1)",
        r"\operatorname{{f}}({})", r"\gcd({},2)", r"\max({},2)", r"\frac{{{}}}{{2}}", "[{}, 2]",
        r"\begin{{pmatrix}}{}&1\end{{pmatrix}}", "x={}", r"\sqrt[{}]{{2}}", "{}%", "2^{{{}}}",
    )  # fmt: skip
    yield from (wrapper.format(call) for call in calls for wrapper in wrappers)
    yield f"\\write18{{touch {marker}}}"


@pytest.fixture(scope="module", autouse=True)
def _warm_worker():
    assert is_correct(r"\sin 2x + 1", r"1 + \sin 2x")  # so that starting it is not timed


@pytest.fixture(scope="module", autouse=True)
def _collect_own_garbage_only() -> Iterator[None]:
    """To look through the objects of libraries that other tests loaded takes up to a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def _grade_in_time(output, gold):
    own = time.process_time()
    verdict = grade(output, gold)
    assert time.process_time() - own < LIMIT
    return verdict


@pytest.mark.parametrize("form", ["\\boxed{%s}", "The answer is %s", "%s"])
@pytest.mark.parametrize("name", [*EXPENSIVE, *LONG])
def test_ends_in_time(name, form):
    text = {**EXPENSIVE, **LONG}[name]
    for gold in ("x+1", r"\{1, 2\}"):
        verdict = _grade_in_time(form.replace("%s", text), gold)
        assert not verdict
        assert not verdict.crashed


@pytest.mark.parametrize("text", [*MALFORMED, *RECURSIVE])
def test_malformed_text_raises_nothing(text):
    for output in (text, "\\boxed{" + text + "}", "The answer is " + text):
        for gold in ("7", "x+1", text):
            grade(output, gold)
            is_correct(output, gold)
            is_correct(gold, output)


def test_nothing_is_executed(tmp_path):
    marker = tmp_path / "executed"
    for text in _injections(marker):
        for gold in ("2", "x+1", r"\begin{pmatrix}1&2\end{pmatrix}"):
            assert not grade("\\boxed{" + text + "}", gold)
            assert not is_correct(text, gold)
        grade("\\boxed{5}", text)  # nor in a gold
    assert not marker.exists()


def test_what_costs_too_much_is_counted_and_graded_wrong(monkeypatch):
    monkeypatch.setattr(pool, "CPU_LIMIT", 0.0)
    counters = pool.shared().counters
    before = counters.timeouts
    verdict = is_correct(r"\sin 2x+\cos 3x+\tan 4x+17", r"17+\tan 4x+\cos 3x+\sin 2x")
    assert not verdict
    assert verdict.timed_out
    assert counters.timeouts == before + 1
    assert not verdict.crashed


def test_what_cannot_be_read_is_counted():
    before = pool.shared().counters.unparsable
    verdict = is_correct(r"\sin 2x \frac", "x+1")
    assert not verdict
    assert verdict.unparsable
    assert pool.shared().counters.unparsable == before + 1
