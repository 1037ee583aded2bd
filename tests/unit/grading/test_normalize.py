import pytest

from rsp_rl.grading.normalize import normalize, readings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\left( 3, \dfrac{\pi}{2} \right)", r"( 3, \frac{\pi}{2} )"),
        (r"11,\! 111,\! 111,\! 100", "11111111100"),
        ("14 {, }916", "14916"),
        ("$48$, $384$.", "48 , 384"),
        (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
        (r"\begin{pmatrix}1\\\frac12\end{pmatrix}", r"\begin{pmatrix}1\\\frac{1}{2}\end{pmatrix}"),
        ("1, 2, 3, ...", r"1, 2, 3, \dots"),
        (r"x\leftarrow y", r"x\leftarrow y"),
        (r"694\ ", "694"),
        ("−½", r"-\frac{1}{2}"),
    ],
)
def test_rules_together(text, expected):
    assert normalize(text) == expected


def test_a_comma_that_may_mean_two_things_is_read_both_ways():
    assert readings("325,950", "325950") == [("325950", "325950"), ("325,950", "325950")]
    assert readings("2,74", "2.74") == [("2.74", "2.74")]
    assert readings("2,7", "3") == [("2,7", "3")]
