r"""Bring an answer to one way of writing it, by the table of `rsp_rl.grading.rules`.

What an answer *is* (a list, an interval, an equation, a value with a unit) is decided afterwards,
in `rsp_rl.grading.structure`.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rsp_rl.grading.ambiguous import other_readings
from rsp_rl.grading.characters import plain_characters
from rsp_rl.grading.qualifiers import without_qualifiers
from rsp_rl.grading.rules import RULES, THOUSANDS
from rsp_rl.grading.structure import strip_braces

LONGEST = 4000
"""Characters. A longer answer is compared as a string only: no real answer is that long."""

_SUM_OR_BOTH = re.compile(r"\+\s?-(?=\s?[\w\\({.])")
_CONSTANT = re.compile(r"\+\s*([cCkK])$")
_INTEGER = re.compile(
    r"(?<![\\a-zA-Z])([a-zA-Z])\s*\\in\s*\\mathbb\s*\{?\s*[ZN]"
    r"|\binteger\s*\}?\s*([a-zA-Z])(?![a-zA-Z])"
    r"|(?<![\\a-zA-Z])([a-zA-Z])\s*(?:\\text\s*\{)?\s*is an(?:y)? (?:arbitrary )?integer"
)
_DECIMAL_POINT = re.compile(r"-?\d+\.\d+$", re.ASCII)
_SHORT_DECIMAL_COMMA = re.compile(r"-?\d+,\d$", re.ASCII)
_DECIMAL_COMMA = re.compile(r"(-?(?:0,\d+|\d+,(?:\d\d|\d{4,})))$", re.ASCII)


def readings(prediction: str, gold: str) -> list[tuple[str, str]]:
    """The normal forms of two answers; several pairs where a comma may mean different things.

    ``325,950`` is a number or a list, ``2,74`` a list or, where the other answer has a point, a
    decimal as much of the world writes it. The constant of integration may have another name, and
    what one answer says of its letters (``for some a>0``) need not be said by the other.
    """
    a, b = normalize(prediction), normalize(gold)
    a = _same_integer(_same_constant(a, b), b)
    pairs = _by_comma(a, b)
    if _SUM_OR_BOTH.search(a):  # 2x+-3 as a program prints a sum; read as both signs above
        pairs += _by_comma(_SUM_OR_BOTH.sub("-", a), b)
    bare, bare_gold = without_qualifiers(a, b)
    if (bare, bare_gold) != (a, b):
        pairs += _by_comma(bare, bare_gold)
    for pair in other_readings(a, b, (prediction, gold)):
        pairs += _by_comma(*pair)
    return pairs


def _by_comma(a: str, b: str) -> list[tuple[str, str]]:
    """Both answers for each of the things that a comma may mean in them."""
    if "," not in a + b:
        return [(a, b)]
    if _SHORT_DECIMAL_COMMA.match(a) and _DECIMAL_POINT.match(b):  # 1,5 beside 1.5 is no list
        return [(a.replace(",", "."), b)]
    if _DECIMAL_COMMA.match(a) and "," not in b:
        return [(a.replace(",", "."), b)]
    if _DECIMAL_COMMA.match(b) and "," not in a:
        return [(a, b.replace(",", ".")), (a, b)]
    forms = [
        dict.fromkeys((THOUSANDS.pattern.sub(THOUSANDS.replacement, text), text)) for text in (a, b)
    ]
    return [(x, y) for x in forms[0] for y in forms[1]]


def _same_constant(prediction: str, gold: str) -> str:
    """The prediction with its constant of integration named as in the gold."""
    theirs, ours = _CONSTANT.search(gold), _CONSTANT.search(prediction)
    if not theirs or not ours or theirs[1] in prediction:
        return prediction
    return prediction[: ours.start(1)] + theirs[1]


def _same_integer(prediction: str, gold: str) -> str:
    r"""The prediction with its integer named as in the gold: ``2k\pi, k\in\mathbb{Z}``."""
    ours, theirs = _INTEGER.search(prediction), _INTEGER.search(gold)
    if not ours or not theirs:
        return prediction
    old, new = (next(filter(None, match.groups())) for match in (ours, theirs))
    if re.search(rf"(?<![\\a-zA-Z]){new}(?![a-zA-Z])", prediction):
        return prediction
    return re.sub(rf"(?<![\\a-zA-Z]){old}(?![a-zA-Z])", new, prediction)


@lru_cache(maxsize=16_384)  # a gold comes back with each of its rollouts
def normalize(text: str) -> str:
    """Apply `RULES` to one answer.

    Args:
        text: An answer of at most `LONGEST` characters; a longer one only loses outer spaces.

    Returns:
        The answer in the one notation that the later stages read.
    """
    if len(text) > LONGEST:
        return text.strip()
    text = plain_characters(text)
    for rule in RULES:
        if not rule.needles or any(needle in text for needle in rule.needles):
            text = rule.pattern.sub(rule.replacement, text)
    return strip_braces(text.strip())
