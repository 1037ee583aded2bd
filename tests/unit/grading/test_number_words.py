import pytest

from rsp_rl.grading.number_words import read_number_words


@pytest.mark.parametrize(
    ("words", "numeral"),
    [
        ("three", "3"),
        ("Twenty-one", "21"),
        ("one hundred and five", "105"),
        ("three hundred twenty-one thousand four hundred", "321400"),
        ("two million", "2000000"),
        ("minus five", "-5"),
        ("two thirds", "2/3"),
        ("a quarter", "1/4"),
        ("negative one half", "-1/2"),
        ("two and a half", "2 1/2"),
        ("fifty%", "50%"),
        ("zero", "0"),
    ],
)
def test_numbers(words, numeral):
    assert read_number_words(words) == numeral


@pytest.mark.parametrize(
    "words",
    [
        *("", "even", "one two", "twenty thirty", "hundred", "fifth", "five one", "no one"),
        *("thousand million", "two hundred three hundred", "one or two", "one " * 30),
    ],
)
def test_what_is_no_number(words):
    assert read_number_words(words) is None
