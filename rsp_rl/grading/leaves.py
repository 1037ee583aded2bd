r"""Compare two leaves (values, expressions, words): the string and numeric stages.

Answers are three-valued: ``True``, ``False``, or ``None`` where only algebra could tell.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

from rsp_rl.grading import units
from rsp_rl.grading.arithmetic import PRECISION, read_expression
from rsp_rl.grading.number_words import read_number_words
from rsp_rl.grading.numeric import Numeral, equal_numerals, read_numeral
from rsp_rl.grading.points import equal_expressions, proportional

_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|math(?:rm|bf|it|sf|normal|tt)|mbox|hbox|boldsymbol|bm|"
    r"operatorname\*?|emph|underline|ensuremath|enquote)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_SWITCH = re.compile(r"\\(?:rm|bf|it|sf|textstyle|displaystyle)(?![a-zA-Z])")
_SINGLE = re.compile(r"\{(\w)\}")
_CHOICE = re.compile(r"\(?\s*([A-K])\s*\)?$")
_CHOSEN = re.compile(
    r"(?:(?:the\s+)?(?:(?:correct|right|final|best)\s+)?(?:option|choice|answer)(?:\s+is)?\s*:?)?\s*(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])(?:\s*[.):]|$))"
    r"(?!\W*(?:or|and|both)\b|\s*[\^_+*/=<>])",
    re.I,
)
_LABELLED_VALUE = re.compile(r"\(\s*[A-K]\s*\)\s*(?=[^\s,)])")
_ONLY_WORDS = re.compile(r"[a-zA-Z'\s.,()\-]+$")
_WORD = re.compile(r"[a-zA-Z]{2,}")
_LONG_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}|\d\s*:\s*\d")
_ARTICLE = re.compile(r"\b(?:the|an?|is|are)\b")
_PLURAL = re.compile(r"(?<=[a-z]{3})(?<!s)s\b")
_NAME = re.compile(r"\s*(?:\\angle\s*)?(?:[A-Z]\s?){3,12}")  # an order or an angle, no product
_TIME = re.compile(
    r"(\d{1,2})(?:\s*:\s*(\d\d))?(?:\s*:\s*(\d\d))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE
)
_RATIO = re.compile(r"\d+\s*:\s*\d+")
_LIMITS = re.compile(r"\\(?:sum|prod|int|lim)(?![a-zA-Z])")  # within which infinity is no value
_SAID = re.compile(
    r"([a-z]+)(?=$|[\s.,;:!])(?!\W{0,9}(?:or|and|yes|no|true|false)\b)"
    r"(?!\s+(?:(?:real|integer|such|positive|other)\s+)?(?:solution|root|value|answer|limit|number)s?\b)"
)
_SEPARATED_DIGITS = re.compile(r"(?<=\d)\s+(?=\d)", re.ASCII)
_YES_NO = ("yes", "no", "true", "false")


def compare_leaves(prediction: str, gold: str) -> tuple[bool | None, str]:
    """Compare two leaves by string, then by number, choice letter, unit or words.

    Args:
        prediction: A leaf of the answer, normalised.
        gold: A leaf of the gold, normalised.

    Returns:
        The decision, ``None`` if undecided, and the stage that made it.
    """
    plain_prediction, plain_gold = unwrap(prediction), unwrap(gold)
    if canonical(plain_prediction) == canonical(plain_gold):
        return True, "string"
    if _LONG_WORD.search(plain_gold) and (
        canonical(plain_prediction).lower() == canonical(plain_gold).lower()
    ):
        return True, "string"
    chosen = _CHOICE.match(plain_gold)
    if chosen:
        letter = _CHOSEN.match(plain_prediction)
        if letter:
            return (letter[1] or letter[2]).upper() == chosen[1], "string"
    if _NAME.fullmatch(plain_prediction) and _NAME.fullmatch(plain_gold):
        angle, gold_angle = ("".join(text.split()) for text in (plain_prediction, plain_gold))
        is_angle = "\\angle" in angle and "\\angle" in gold_angle
        return is_angle and _points(angle) == _points(gold_angle)[::-1], "string"
    same_time = _same_time(plain_prediction, plain_gold)
    if same_time is not None:
        return same_time, "string"
    a, b = _numerals(plain_prediction, plain_gold)
    if a is not None and b is not None:
        return equal_numerals(a, b), "numeric"
    if any(number is not None and number.base not in (None, 10) for number in (a, b)):
        return False, "numeric"  # a numeral in a base is compared with nothing else
    value, unit = units.split(prediction)
    gold_value, gold_unit = units.split(gold)
    if unit or gold_unit:
        if unit and gold_unit and not units.compatible(unit, gold_unit):
            return _same_quantity(value, gold_value, units.ratio(unit, gold_unit)), "numeric"
        return compare_leaves(value, gold_value)
    label = _LABELLED_VALUE.match(plain_prediction)
    if label and not chosen:
        return compare_leaves(plain_prediction[label.end() :], gold)
    if is_words(prediction, plain_prediction) or is_words(gold, plain_gold):
        return _same_words(plain_prediction, plain_gold), "string"
    within_sums = _LIMITS.search(prediction) and _LIMITS.search(gold)
    if ("\\infty" in prediction or "\\infty" in gold) and not within_sums:
        return _same_infinity(plain_prediction, plain_gold), "string"
    first, second = read_expression(plain_prediction), read_expression(plain_gold)
    if first is None or second is None:
        return None, "none"
    return equal_expressions(first, second, PRECISION), "numeric"


def compare_relations(prediction: tuple[str, str], gold: tuple[str, str], sign: int) -> bool | None:
    """Whether two relations agree up to a constant factor, as far as arithmetic can tell.

    Args:
        prediction: Left and right side of a relation.
        gold: Left and right side of another.
        sign: What sign the factor must have, 0 for any.
    """
    sides = [read_expression(unwrap(side)) for side in (*prediction, *gold)]
    if any(side is None for side in sides):
        return None
    return proportional((sides[0], sides[1]), (sides[2], sides[3]), PRECISION, sign=sign)


def compare_yes_no(prediction: str, gold: str) -> bool | None:
    """Compare with a gold that is yes, no, true or false; ``None`` if it is none of them."""
    if _bare_words(unwrap(gold)) not in _YES_NO:
        return None
    return _same_words(unwrap(prediction), unwrap(gold))


def unwrap(text: str) -> str:
    r"""Replace ``\text{...}``, ``\mathrm{...}`` and their kin by what they hold."""
    if "\\" not in text:
        return text
    for _ in range(4):
        text, count = _WRAPPER.subn(r" \1 ", text)
        if not count:
            break
    return _SWITCH.sub(" ", text).strip()


def canonical(text: str) -> str:
    """The form in which two equal strings are equal: no needless spaces, no needless braces."""
    text = _SEPARATED_DIGITS.sub("~", text)  # 1 1/2 is not 11/2
    return _SINGLE.sub(r"\1", "".join(text.split()))


def is_words(text: str, plain: str) -> bool:
    """Whether a leaf is an answer in words ("east", "no solution") and not mathematics."""
    if not _ONLY_WORDS.match(plain) or not _WORD.search(plain):
        return False
    return plain != text.strip() or " " in plain.strip() or len(plain) >= 4


def _same_words(prediction: str, gold: str) -> bool:
    a, b = _bare_words(prediction), _bare_words(gold)
    if b in _YES_NO:
        said = _SAID.match(prediction.strip().lower())
        return said is not None and said[1] == b
    return bool(a) and _SAME_WORDS.get(a, a) == _SAME_WORDS.get(b, b)


def _bare_words(text: str) -> str:
    text = _ARTICLE.sub(" ", text.lower())
    return "".join(char for char in _PLURAL.sub("", text) if char.isalnum())


_SAME_WORDS = {
    _bare_words(phrase): phrases[0]
    for phrases in (
        ("does not exist", "doesn't exist", "DNE", "undefined", "not defined", "nonexistent"),
        (
            *("no solution", "no solution exists", "there is no solution", "has no solution"),
            *("no real solution", "there are no real solutions", "emptyset", "the empty set"),
        ),
        ("converges", "convergent", "it converges", "the series converges", "is convergent"),
        ("diverges", "divergent", "it diverges", "the series diverges", "does not converge"),
        ("converges absolutely", "absolutely convergent"),
        ("converges conditionally", "conditionally convergent"),
        ("infinitely many", "infinitely many solutions", "there are infinitely many solutions"),
    )
    for phrase in phrases
}


def _same_quantity(value: str, gold_value: str, ratio: Fraction | None) -> bool:
    """Whether so many of one unit are so many of another, ``ratio`` of which it is."""
    a, b = read_numeral(unwrap(value)), read_numeral(unwrap(gold_value))
    if ratio is None or a is None or b is None:
        return False
    return equal_numerals(replace(a, value=a.value * ratio), b)


def _points(name: str) -> str:
    return re.sub(r"\\[a-z]+", "", name)


def _numerals(prediction: str, gold: str) -> tuple[Numeral | None, Numeral | None]:
    """Two numerals, of which one may be in words."""
    a, b = read_numeral(prediction), read_numeral(gold)
    if a is None and b is not None:
        a = read_numeral(read_number_words(prediction) or "")
    elif b is None and a is not None:
        b = read_numeral(read_number_words(gold) or "")
    return a, b


def _same_time(prediction: str, gold: str) -> bool | None:
    """Whether two times of day are the same; ``None`` if neither is one, or one is a ratio."""
    times = [_time(text) for text in (prediction, gold)]
    if None in times:
        is_ratio = any(
            time is None and _RATIO.fullmatch(text.strip())
            for time, text in zip(times, (prediction, gold), strict=True)
        )
        return None if times == [None, None] or is_ratio else False
    return times[0] == times[1]


def _time(text: str) -> tuple[int, ...] | None:
    """A time of day as hour of the day, minute, second."""
    found = _TIME.fullmatch(text.strip())
    if not found or not (found[2] or found[4]):
        return None
    hour = int(found[1])
    if found[4]:
        hour = hour % 12 + 12 * (found[4] in "pP")
    return hour, int(found[2] or 0), int(found[3] or 0)


def _same_infinity(prediction: str, gold: str) -> bool:
    return canonical(prediction).removeprefix("+") == canonical(gold).removeprefix("+")
