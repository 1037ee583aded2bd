import pytest

from rsp_rl.grading.characters import plain_characters


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\u200e5\u200f\ufeff\u2060\u00ad", "5"),
        ("５＋ｘ", "5+x"),
        ("𝑥+𝟓", "x+5"),
        ("٣", "3"),
        ("Ⓑ", "B"),
        ("1\u2009000", "1 000"),
        ("\x0crac{1}{2}", r"\frac{1}{2}"),
        ("\x08oxed{5}", r"\boxed{5}"),
        ("3\times 2", r"3\times 2"),
        ("\right)", r"\right)"),
        ("5\x00\x1b", "5"),
        ("a\n\tb", "a\n\tb"),
        ("ℝ, x²", "ℝ, x²"),
        ("\ud800", "\ud800"),
    ],
)
def test_plain_characters(text, plain):
    assert plain_characters(text) == plain
