import pytest

from rsp_rl.grading import extract_answer

CASES = [
    # 1. Minerva's form comes first, and its first occurrence counts.
    (r"\boxed{3} Final Answer: The final answer is $5$. I hope it is correct.", "minerva", "5"),
    (
        "The final answer is $5$. I hope it is correct.\n\nNext: the final answer is $6$. I hope",
        "minerva",
        "5",
    ),
    ("final answer is $48$, $384$. I hope it is correct.", "minerva", "48$, $384"),
    ("final answer is $$. I hope. \\boxed{7}", "boxed", "7"),
    # 2. The last box that is not empty.
    (r"\boxed{1} then \boxed{2}", "boxed", "2"),
    (r"\boxed{4} ... \boxed{}", "boxed", "4"),
    (r"\boxed{4} ... \boxed{ }", "boxed", "4"),
    (r"\fbox{9}", "boxed", "9"),
    (r"\boxed{\frac{1}{2}}", "boxed", r"\frac{1}{2}"),
    (r"\boxed{\{1, \{2\}\}}", "boxed", r"\{1, \{2\}\}"),
    (r"\boxed{\text{east, } 5 \text{ cm}}", "boxed", r"\text{east, } 5 \text{ cm}"),
    (r"\boxed{\boxed{5}}", "boxed", "5"),
    (r"\boxed{5", "boxed", "5"),
    (r"$\boxed{\frac{1}{2}$ and more", "boxed", r"\frac{1}{2}"),
    (r"\boxed{5} so \boxed{", "boxed", "5"),
    (r"$\boxed 5$", "boxed", "5"),
    (r"\boxed {5}", "boxed", "5"),
    (r"\boxed{5}. The answer is 6.", "boxed", "5"),
    ("}}} \\boxed{5}", "boxed", "5"),
    # 3. and 4. What follows the phrases.
    ("The answer is 5.", "answer_is", "5"),
    ("the answer is: $\\frac{1}{2}$.", "answer_is", "$\\frac{1}{2}$"),
    ("The answer is 3. No, the answer is 4. Because it is.", "answer_is", "4"),
    ("The answer is\n\\[\n x+1 \n\\]\nas required.", "answer_is", "x+1"),
    ("The answer is\n\n5", "answer_is", "5"),
    ("THE ANSWER IS 12", "answer_is", "12"),
    ("The answer is **5**.", "answer_is", "5"),
    ("The answer is 5, which is prime.", "answer_is", "5"),
    ("the answer is $5$ because $3+2=5$.", "answer_is", "$5$"),
    ("The final answer is 5", "final_answer_is", "5"),
    ("**Final Answer:** $x=3$", "final_answer_is", "$x=3$"),
    ("Final Answer: The largest $n$ is 34.", "final_answer_is", "34"),
    ("Some reasoning.\nAnswer: 42", "final_answer_is", "42"),
    # 5. The last number.
    ("there are 3 cats and 12 dogs.", "last_number", "12"),
    ("so it costs $1,234.50 in all.", "last_number", "1,234.50"),
    ("we get x = -7", "last_number", "-7"),
    ("10-5 is", "last_number", "5"),
    ("about 4.5e33 erg", "last_number", "4.5e33"),
    ("hence .35625", "last_number", ".35625"),
    ("with probability 3/4.", "last_number", "3/4"),
    (r"with probability \frac{3}{4}.", "last_number", r"\frac{3}{4}"),
    ("by 100%.", "last_number", "100%"),
    # Nothing.
    ("no idea", "none", ""),
    ("", "none", ""),
    (r"\boxed{}", "none", ""),
]


@pytest.mark.parametrize(("output", "step", "answer"), CASES)
def test_chain(output, step, answer):
    found = extract_answer(output)
    assert (found.step, found.text) == (step, answer)


def test_boxes_that_are_joined_are_one_answer():
    assert extract_answer(r"$\boxed{-2}$ and $\boxed{1}$").text == "-2,1"
    assert extract_answer(r"$x=\boxed{2}$ or $x=\boxed{3}$").text == "2,3"
    assert extract_answer(r"\boxed{2}\boxed{3}").text == "3"
    assert extract_answer(r"\boxed{2}\boxed{3}").wider == "2,3"
    assert extract_answer(r"\boxed{2} is wrong, so we get \boxed{3}").text == "3"
