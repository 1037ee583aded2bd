"""What is the same answer and what is not, by kind."""

import pytest

from rsp_rl.grading import is_correct

EQUAL = {
    "numbers": [
        ("0.5", r"\frac12"), ("1/2", "0.5"), ("27.0", "27"), ("025", "25"), ("+5", "5"),
        ("1{,}234", "1234"), ("1,234,567", "1234567"), ("4.5 \\times 10^{33}", "4.5e33"),
        ("-0.3333", "-1./3"), ("2\\frac12", "\\frac52"), ("2 1/2", "2.5"), ("0.\\overline{3}", "1/3"),
        ("\\frac{10}{4}", "2.5"), ("1e-5", "10^{-5}"), ("--5", "5"),
    ],
    "percent": [
        ("12.5\\%", "0.125"), ("12.5", "12.5\\%"), ("0.125", "12.5\\%"), ("12.5%", "12.5\\%"),
        ("25\\%", "25"), ("62.5 percent", "62.5%"),
    ],
    "closed forms": [
        (r"\frac{\sqrt2}{2}", r"1/\sqrt{2}"), (r"\sqrt{12}", r"2\sqrt3"), ("1.7320508", r"\sqrt{3}"),
        (r"2\cdot 3^{4}", "162"), (r"\frac{4 \cdot 999^{4}}{27}", r"\frac{4}{27} \cdot 999^4"),
        (r"\sqrt[3]{-8}", "-2"), (r"\frac{1}{\sqrt{5}-2}", r"\sqrt5+2"), (r"(\sqrt3)^2-3", "0"),
        (r"\arcsin(10/13)", "np.arcsin(10/13)"), (r"\binom{4}{2}", "6"), ("3!", "6"),
    ],
    "expressions": [
        ("(x+1)^2", "x^2+2x+1"), ("a(b+c)", "ab+ac"), (r"2\sin x\cos x", r"\sin 2x"),
        (r"e^{-t}/2", r"\frac{1}{2e^{t}}"), (r"\ln(x^2)", r"2\ln x"), ("x_1+x_2", "x_{2}+x_{1}"),
        ("y'+2y", "2y+y'"), (r"\lfloor n/2 \rfloor", r"\left\lfloor\frac{n}{2}\right\rfloor"),
        ("(n-2) 2^{n}+1", "1+n2^n-2^{n+1}"),
    ],
    "complex": [("5-6i", "-6i+5"), ("(1+2i)^2", "-3+4i"), (r"e^{i\pi}", "-1"), ("i^2", "-1")],
    "labels": [
        ("x=5", "5"), ("5", "x=5"), ("5=x", "x=5"), ("y=2x+3", "2x+3"), ("f(x)=2x", "2x"),
        ("f(x)=2x", "y=2x"), (r"\angle ABC=90", "90"), ("3+4=7", "7"), (r"x \in [1,2)", "[1,2)"),
        ("(x,y)=(1,2)", "(1,2)"), ("x=1, y=2", "(1,2)"), (r"m_{\max}=7", "7"), ("x=4,x=3", "3,4"),
    ],
    "equations": [
        ("y=2x+3", "2x-y+3=0"), ("2x+2y=4", "x+y=2"), ("x+y=2", "2=x+y"), ("xy=1", "yx=1"),
    ],
    "lists and sets": [
        ("2,1", "1,2"), (r"\{2,1\}", "1,2"), ("1 and 2", "1,2"), (r"1\text{ or }2", "2,1"),
        (r"1\pm\sqrt2", r"1-\sqrt2,1+\sqrt2"), (r"\pm 3", "-3,3"), (r"\{5\}", "5"), ("0.5;3", r"3,\frac12"),
        ("(1,2),(3,4)", "(3,4),(1,2)"), ("-2", "-2,-2"),
    ],
    "tuples and intervals": [
        (r"\left(1,\frac12\right)", "(1,0.5)"), (r"(-\infty,2]", r"(-\infty, 2]"), ("1,2", "(1,2)"),
        (r"[2,+\infty)", r"[2,\infty)"), (r"(3,4)\cup(1,2)", r"(1,2) \cup (3,4)"), (r"\langle 1,2\rangle", "(1,2)"),
    ],
    "inequalities": [
        (r"x\ge 2", r"[2,\infty)"), ("2<x<3", "(2,3)"), ("3>x>2", "2<x<3"), (r"2\le x", r"x \geqslant 2"),
        (r"x<-7\text{ or }x>8", r"(-\infty,-7)\cup(8,\infty)"), (r"\{x|-2\leq x<1\}", "[-2,1)"), ("2x>4", "x>2"),
    ],
    "matrices": [
        (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", r"\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}"),
        (r"\begin{pmatrix}0.5\\1\end{pmatrix}", r"\begin{pmatrix}\frac12\\1\end{pmatrix}"),
        (r"(1,2)", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\frac12\begin{pmatrix}2&4\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    ],
    "choices": [
        ("B", r"\text{(B)}"), ("(B)", "B"), (r"\textbf{(B)}", "B"), ("b", "B"), ("B. 5", "B"),
        (r"\text{(C)}\ 5", "5"), ("Option C", "C"),
    ],
    "words": [
        ("East", r"\text{east}"), (r"\text{No solution}", "no solution."), ("YES", "Yes"), ("true", "True"),
        ("Yes, it is.", "Yes"), ("a necessary but not a sufficient condition",
                               r"\text{Necessary but not sufficient condition}"),
    ],
    "units": [
        ("5 cm", "5"), (r"5\text{ cm}", r"5 \mathrm{~cm}"), ("5", r"5\text{ inches}^2"), (r"90^\circ", "90"),
        ("12 apples", "12"), (r"\$18.90", "18.90"), ("45 mph", r"45 \mathrm{mph}"), ("10 minutes", r"10\text{ min}"),
        ("15 square centimeters", r"15\mbox{ cm}^2"), ("20 $cm^{2}$", "20"),
    ],
    "bases": [("52_{8}", "52_8"), (r"52_{\text{eight}}", "52_8"), ("52", "52_8")],
}  # fmt: skip

DIFFERENT = {
    "numbers": [
        ("5", "6"), ("-5", "5"), ("50", "0.5"), ("0.5", "50"), ("1.5", "1"), ("2^{2000}", "2^{2001}"),
        ("10000000001", "10000000000"), ("0.333", "1/3"), ("3001/7001", "3/7"), ("11 6/6", "12"),
        ("1,2", "12"), ("1e400", "1e401"), ("5.0001", "5"), ("", "5"), ("5", ""),
    ],
    "percent": [("12.5", "0.125"), ("0.25\\%", "25\\%"), ("1250\\%", "0.125")],
    "expressions": [
        ("x+2", "x+1"), ("x^2", "x"), ("2x", "x^2"), (r"\sin x", r"\cos x"), ("-x", "x"), ("x", "y"),
        (r"\lceil n/3\rceil", r"\lceil n/2\rceil"), ("y'", "y"), (r"\log x", r"\ln x"), ("f(x)+f(1)", "f(x+1)"),
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}"), (r"\text{not } 0", "0"), ("x", "5"), ("5x", "5"), (r"5\pi", "5"),
    ],
    "contains": [
        ("5 or 6", "5"), ("5, 6", "5"), ("(5, 6)", "5"), ("x > 5", "5"), ("2x=5", "5"), ("x^2=5", "5"),
        ("not 5", "5"), ("5+x", "5"), ("11a+c", "7=11a+c"), ("5", "2x+z=5"), ("x=5", "y=5"),
    ],
    "equations": [("4x^2+9x+19=0", "4x^2+8x+19=0"), ("y=2x+3", "y=2x-3"), ("3+4=8", "8")],
    "lists and sets": [
        ("1,3", "1,2"), ("1", "1,2"), ("1,2,3", "1,2"), ("12", "1,2"), (r"\pm 3", "3"), ("-1,1,1", "-1,-1,1,1"),
    ],
    "tuples and intervals": [
        ("(2,1)", "(1,2)"), ("[1,2)", "(1,2)"), ("[1,2]", "(1,2)"), ("(1,2]", "[1,2)"), ("[1,2]", "1,2"),
        (r"\{1,2\}", "(1,2)"), (r"(1,2)\cup(3,4)", "(1,2)"), (r"(-\infty,2)", r"(2,\infty)"), ("2,1", "(1,2)"),
    ],
    "inequalities": [("x>2", r"x\ge 2"), ("x<2", "x>2"), (r"[2,\infty)", "x>2"), ("2<x<4", "2<x<3"), ("-2x>4", "x>-2")],
    "matrices": [
        (r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        (r"\begin{pmatrix}1&2&3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
    ],
    "choices": [("A", "B"), ("A or B", "B"), ("(A)", "B")],
    "words": [("west", r"\text{east}"), ("northeast", "east"), ("No", "Yes"), ("not yes", "Yes")],
    "units": [("5 hours", r"5\text{ min}"), (r"5\text{ cm}^3", r"5\text{ cm}^2"), ("6 cm", "5")],
    "bases": [("52_9", "52_8"), ("53_8", "52_8"), ("42", "52_8"), ("52_8", "52")],
    "times": [("1:00", "12:00"), ("12:00", "0")],
}  # fmt: skip


def _rows(table):
    return [pytest.param(*row, id=f"{kind}: {row}") for kind, rows in table.items() for row in rows]


@pytest.mark.parametrize(("answer", "gold"), _rows(EQUAL))
def test_equal(answer, gold):
    assert is_correct(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), _rows(DIFFERENT))
def test_different(answer, gold):
    assert not is_correct(answer, gold)
