"""Notation that models write and references do not: right and wrong, by kind."""

import pytest

from rsp_rl.grading import extract_answer, grade, is_correct

RIGHT = {
    "characters": [
        ("５", "5"),
        ("\u200e5\u200f", "5"),
        ("𝑥+1", "x+1"),
        ("⅞", "7/8"),
        ("aₙ = n²", "n^2"),
        ("∠A = 30°", "30"),
        ("⌊x⌋", r"\lfloor x\rfloor"),
        ("45º", "45"),
        ("\x0crac{1}{2}", "1/2"),
    ],
    "numbers in words": [
        ("three", "3"),
        ("21", r"\text{twenty-one}"),
        ("one half", "1/2"),
        ("minus 5", "-5"),
        (r"\text{negative } 5", "-5"),
        ("fifty percent", "50%"),
        ("5th", "5"),
        (r"5^{\text{th}}", "5"),
        ("7 hundredths", "0.07"),
        (r"5 \text{ factorial}", "120"),
        ("1 out of 4", "1/4"),
        ("3 to 5", "3:5"),
        ("3 plus or minus 2", r"3\pm 2"),
    ],
    "another form in brackets": [
        ("3/8 (0.375)", "3/8"),
        (r"\frac{3}{8} \text{ (0.375)}", r"\frac{3}{8}"),
        ("12 (twelve)", "12"),
        ("0.5 (50%)", "0.5"),
        ("2 (3)", "6"),
        (r"\sqrt{2} \text{ (about 1.41)}", r"\sqrt{2}"),
        ("1.4142...", r"\sqrt{2}"),
    ],
    "grouped digits": [
        ("1'000", "1000"),
        ("1.234,5", "1234.5"),
        ("1.234.567", "1234567"),
        ("1,5", "1.5"),
        ("2{,}5", "2.5"),
        ("2{,}500", "2500"),
        ("0.123 456", "0.123456"),
        ("1 1/2", "3/2"),
    ],
    "units": [
        ("9.8 m/s^2", "9.8"),
        ("10 m^2", "10 square meters"),
        ("10 sq. ft", "10"),
        ("5 (cm)", "5"),
        (r"5\,\mu m", "5"),
        (r"\SI{5}{\meter}", "5"),
        ("Rs. 500", "500"),
        (r"\text{USD } 5", "5"),
        ("5 dozen", "60"),
        ("90 minutes", "1.5 hours"),
        ("5 km", "5000 meters"),
        ("5 dollars", "500 cents"),
        ("3 + 4 = 7 apples", "7"),
        (r"n! \text{ ways}", "n!"),
        (r"\frac{\pi}{4}", r"45^\circ"),
    ],
    "days": [("5 January", "January 5th"), ("Jan. 5, 2020", "January 5, 2020")],
    "names": [(r"\angle ABC", r"\angle CBA"), ("BAC", "BAC"), ("ABx", "BAx")],
    "times": [("3:00 PM", "3:00 p.m."), ("3 PM", "3:00 PM"), ("15:00", "3:00 PM"), ("6:10", "3:5")],
    "sets": [
        ("]1,2]", "(1,2]"),
        ("{1, 2}", r"\{1,2\}"),
        ("{x | 3 < x < 5}", "(3,5)"),
        (r"x \ge 1 \text{ and } x < 2", "[1,2)"),
        ("|x| < 3", "(-3,3)"),
        (r"x\neq 1", r"(-\infty,1)\cup(1,\infty)"),
        (r"\mathbb{R} - \{-1,1\}", r"x \neq \pm 1"),
        (r"\text{all real numbers except } 1", r"x\neq 1"),
        (r"(0,\infty)\cup(-\infty,0)", r"\mathbb{R}\setminus\{0\}"),
        ("no solution", r"\emptyset"),
        ("DNE", "does not exist"),
        ("convergent", "converges"),
        ("does not converge", "diverges"),
        ("<1,2>", "(1,2)"),
    ],
    "pieces of a function": [
        (
            r"f(x)=\begin{cases}2x & x>0\\-x & x\le 0\end{cases}",
            r"\begin{cases}-x, & \text{if } x\le 0\\x+x, & \text{if } 0<x\end{cases}",
        ),
        (
            r"\begin{cases}1 & x>0\\0 & \text{otherwise}\end{cases}",
            r"\begin{cases}1, & x>0,\\0, & \text{otherwise.}\end{cases}",
        ),
    ],
    "equations": [
        ("a=1\nb=2", "a=1, b=2"),
        (r"\int_0^1 x\,dx = \frac{1}{2}", "1/2"),
        (r"\lim_{x\to 0} f(x) = 5", "5"),
        ("AB:BC = 2:3", "2:3"),
        ("dy/dx = 2x", "2x"),
        (r"x \text{ is } 5", "5"),
        (r"k\pi, k\in\mathbb{Z}", r"n\pi, n \in \mathbb{Z}"),
        (r"x^2 \text{ if } x > 0", "x^2"),
        ("n ≡ 3 (mod 5)", r"n \equiv 3 \pmod 5"),
    ],
    "counting": [
        ("C(5,2)", "10"),
        ("5C2", "10"),
        ("{}_5C_2", "10"),
        ("C_5^2", "10"),
        ("P(5,2)", "20"),
        ("C(5,2)", "(5,2)"),
        (r"\binom52", "10"),
    ],
    "other people's LaTeX": [
        (r"\Large{5}", "5"),
        (r"\begin{equation}5\end{equation}", "5"),
        (r"\nicefrac{1}{2}", "0.5"),
        (r"\frac{\frac12}{3}", "1/6"),
        (r"2^\frac{1}{2}", r"\sqrt{2}"),
        (r"\tg x", r"\tan x"),
        (r"\varphi", r"\phi"),
        ("log2(8)", "3"),
        (r"\log_23", r"\frac{\ln 3}{\ln 2}"),
        ("abs(x)", "|x|"),
        (r"5 \quad \blacksquare", "5"),
        ("0b1011", "1011_2"),
        ("ab_{16}", "AB_{16}"),
        ("oo", r"\infty"),
    ],
}

WRONG = {
    "blanks between digits": [
        ("11/2", "1 1/2"),
        ("1 1/2", "11/2"),
        ("2 3", "23"),
        (r"\frac{1 1}{2}", r"\frac{11}{2}"),
        ("2^1 0", "2^{10}"),
    ],
    "numbers in words": [
        ("four", "3"),
        ("even", "2"),
        ("fifth", "5"),
        ("5 squared", "5"),
        (r"5 \text{ factorial}", "5"),
        ("7 hundredths", "7"),
        ("5 out of 6", "5"),
        (r"5 \text{ is not}", "5"),
    ],
    "another form in brackets": [("3/8 (0.475)", "3/8"), ("3 (5)", "3,5"), ("2(3)", "2")],
    "grouped digits": [("1,500", "1.5"), ("1.000", "1000"), ("1,5", "15")],
    "units": [
        ("5 km", "5 meters"),
        ("5 km", "500 meters"),
        ("5 kg", "5000 meters"),
        ("9 minutes", "9 hours"),
        ("5 km/h", "5 m/s"),
        ("5 m/s", "5 m/s^2"),
        ("5m", "5"),
        (r"\frac{\pi}{4}", "45"),
    ],
    "days": [("January 5", "January 6"), ("5", "January 5")],
    "names": [(r"\angle ABC", r"\angle ACB"), ("ABC", "BAC")],
    "times": [("3:00 PM", "3:00 AM"), ("3:00", "3:00 PM"), ("1:00", "12:00"), ("3:00", "3")],
    "sets": [
        (r"\{\emptyset\}", r"\emptyset"),
        (r"\{\{1\}\}", r"\{1\}"),
        ("(3,4)", "{3,4}"),
        (r"\mathbb{R}\setminus\{2\}", r"(-\infty,1)\cup(1,\infty)"),
        (r"\mathbb{R}\setminus\{1\}", r"\{1\}"),
        (r"x\neq 1", r"(-\infty,1]\cup(1,\infty)"),
        (r"x\neq 1", "1"),
        (r"\sqrt[3]{2}, \sqrt[4]{5}", r"\sqrt[3]{2}, \sqrt[4]{3}"),
        ("0", "no solution"),
        ("no solution", "no"),
        ("True, False", "True"),
        ("conditionally convergent", "converges absolutely"),
    ],
    "pieces of a function": [
        (
            r"\begin{cases}1 & x>0\\0 & \text{otherwise}\end{cases}",
            r"\begin{cases}0 & x>0\\1 & \text{otherwise}\end{cases}",
        ),
        ("x", r"\begin{cases}x & x>0\\x & x\le 0\end{cases}"),
    ],
    "equations": [
        ("y_1=5x\ny_2=3", "y_1=x\ny_2=3"),
        (r"y=2x \quad y=-x", r"y=3x \quad y=-x"),
        (r"k\pi, k\in\mathbb{Z}", r"2n\pi, n \in \mathbb{Z}"),
        (r"x \equiv 3 \pmod 5", r"x \equiv 3 \pmod 7"),
    ],
    "counting": [("C(5,2)", "5"), ("C(2,5)", "10"), ("5C2", "52")],
}

RIGHT_OUTPUTS = {
    "tokens": [
        ("The answer is x+1<|im_end|>", "x+1"),
        ("The answer is x+1</s>", "x+1"),
        ("The answer is x+1<end_of_turn>", "x+1"),
        (r"The answer is \frac{1}{2}<｜end▁of▁sentence｜>", "1/2"),
    ],
    "answers in tags": [
        ("So 3 and 4. <answer>(1,2)</answer> I used 5.", "(1,2)"),
        ("<answer>The answer is 7</answer> in 3 steps", "7"),
        ("Put it in <answer></answer>. The answer is 7", "7"),
        ("<think>a <answer>5</answer></think><Answer>7</Answer> 3", "7"),
    ],
    "boxes denied or rounded": [
        (r"\boxed{1}, not \boxed{2}", "1"),
        (r"It is not \boxed{2}, it is \boxed{1}.", "1"),
        (r"$\boxed{\frac{1}{3}} \approx \boxed{0.33}$", "1/3"),
        (r"$\boxed{\frac{1}{3}} \approx \boxed{0.33}$", "0.33"),
    ],
    "sentences": [
        ("The correct answer is B.", "B"),
        ("The correct option is (B) 12.", "B"),
        ("The answer is 42!", "42"),
        ("The answer is exactly 5.", "5"),
        ("The answer is given by $5$.", "5"),
        ("The answer is 5 (see step 3).", "5"),
        ("The answer is 5, not 6.", "5"),
        ("The answer is $5!$.", "120"),
        ("# 5", "5"),
        ("答案是 ５", "5"),
        ("Ответ: 5", "5"),
        ("The final answer is 5. I hope it is correct.\n\nThe final answer is 4. I hope", "5"),
    ],
}

WRONG_OUTPUTS = {
    "boxes denied or rounded": [(r"\boxed{1}, not \boxed{2}", "2")],
    "sentences": [
        (r"\boxed{5!}", "5"),
        ("The answer is not 5.", "5"),
        ("The answer is 5, not 6.", "6"),
    ],
}


def _rows(table):
    return [pytest.param(*row, id=f"{kind}: {row}") for kind, rows in table.items() for row in rows]


@pytest.mark.parametrize(("answer", "gold"), _rows(RIGHT))
def test_right_answers(answer, gold):
    assert is_correct(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), _rows(WRONG))
def test_wrong_answers(answer, gold):
    assert not is_correct(answer, gold)


@pytest.mark.parametrize(("output", "gold"), _rows(RIGHT_OUTPUTS))
def test_right_outputs(output, gold):
    assert grade(output, gold), extract_answer(output)


@pytest.mark.parametrize(("output", "gold"), _rows(WRONG_OUTPUTS))
def test_wrong_outputs(output, gold):
    assert not grade(output, gold), extract_answer(output)
