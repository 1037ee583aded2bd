r"""Bring an answer to one way of writing it, by the table of `rsp_rl.grading.rules`.

What an answer *is* (a list, an interval, an equation, a value with a unit) is decided afterwards,
in `rsp_rl.grading.structure`.
"""

from __future__ import annotations

import re

from rsp_rl.grading.rules import RULES, THOUSANDS
from rsp_rl.grading.structure import strip_braces

LONGEST = 4000
"""Characters. A longer answer is compared as a string only: no real answer is that long."""

_BOUND = r"[a-zA-Z](?:_\{?\w\}?)?"
_NUMBERS = r"\s*\\in(?![a-zA-Z])\s*(?:\\mathbb\s*\{?\s*[ZNRQC]\s*\}?|[ZNRQC](?![a-zA-Z]))(?:[_^]\{?[\w*+]+\}?)?"
_QUANTIFIED = (
    r"for\s+(?:(?:any|all|some|every|each|arbitrary|constant|real|integers?)\b"
    r"|(?=[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*(?:[<>]|\\(?:in|[lg]e|neq)(?![a-zA-Z]))))"
)
_WHERE = r"where|with|provided(?:\s+that)?|whenever"
_QUALIFIER = re.compile(
    r"[\s,;]*\(?\s*(?:\\(?:text|mathrm|mbox)\s*\{[\s,(]*(?:for|" + _WHERE + r")\b|\b" + _QUANTIFIED
    + r"|\b(?:" + _WHERE + r")\b|\\forall(?![a-zA-Z]))"
    + r"|\s*[,;(]\s*(?:" + _BOUND + r"\s*,\s*){0,3}" + _BOUND + _NUMBERS + r"\s*\)?\s*$",
    re.IGNORECASE,
)  # fmt: skip
_RANGE = re.compile(  # , c>0
    r"\s*[,;(]\s*(" + _BOUND + r")\s*(?:[<>]|\\(?:[lg]e|neq)(?![a-zA-Z]))\s*-?[\d.]+\s*\)?\s*$"
)
_INEQUALITY = re.compile(r"[<>]|\\(?:[lg]e|neq|in)(?![a-zA-Z])")
_QUALIFIER_BEFORE = re.compile(
    r"\s*(?:\\text\s*\{\s*)?" + _QUANTIFIED + r"[^,]{0,80},", re.IGNORECASE
)
_LONG_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
_DEFINES = re.compile(r"(?<!\\)=|\b(?:for|if)\b", re.IGNORECASE)
_QUANTIFIER = re.compile(
    r"\\(?:text|mathrm|mbox|forall)(?![a-zA-Z])|\b(?:any|all|some|every|each|arbitrary|constants?"
    r"|real|numbers?|integers?|where|with|for|is|are|an?)\b|[\s{},;()]",
    re.IGNORECASE,
)
_FIRST_FOR = re.compile(r"\bfor\b", re.IGNORECASE)
_SUM_OR_BOTH = re.compile(r"\+\s?-(?=\s?[\w\\({.])")
_CONSTANT = re.compile(r"\+\s*([cCkK])$")
_DECIMAL_COMMA = re.compile(r"(-?(?:0,\d+|\d+,(?:\d\d|\d{4,})))$", re.ASCII)


def readings(prediction: str, gold: str) -> list[tuple[str, str]]:
    """The normal forms of two answers; several pairs where a comma may mean different things.

    ``325,950`` is a number or a list, ``2,74`` a list or, where the other answer has a point, a
    decimal as much of the world writes it. The constant of integration may have another name, and
    what one answer says of its letters (``for some a>0``) need not be said by the other.
    """
    a, b = normalize(prediction), normalize(gold)
    a = _same_constant(a, b)
    pairs = _by_comma(a, b)
    if _SUM_OR_BOTH.search(a):  # 2x+-3 as a program prints a sum; read as both signs above
        pairs += _by_comma(_SUM_OR_BOTH.sub("-", a), b)
    bare, bare_gold = _without_qualifiers(a, b)
    if (bare, bare_gold) != (a, b):
        pairs += _by_comma(bare, bare_gold)
    return pairs


def _without_qualifiers(prediction: str, gold: str) -> tuple[str, str]:
    """Two answers less what they say of their letters, if one says nothing or both the same.

    Where both differ in it, ``x`` for ``x>0`` and ``x`` for ``x<0``, they stay as they are.
    """
    value, qualifier = _qualified(prediction)
    gold_value, gold_qualifier = _qualified(gold)
    if qualifier and gold_qualifier and _said(qualifier) != _said(gold_qualifier):
        return prediction, gold
    return value, gold_value


def _qualified(text: str) -> tuple[str, str]:
    """An answer as its value and a qualifier: ``cx`` and ``for any constant c``."""
    before = _QUALIFIER_BEFORE.match(text)
    if before:
        return text[before.end() :].lstrip(" }"), before.group()
    bounded = _RANGE.search(text)
    if bounded:  # the letter must be one that the value is made of, and not what it is called
        value = text[: bounded.start()]
        made_of = bounded[1] in value.rpartition("=")[2]
        is_it = made_of and "," not in value and not _INEQUALITY.search(value)
        return (value, bounded.group()) if is_it else (text, "")
    found = _QUALIFIER.search(text)
    if not found or not found.start():
        return text, ""
    value, qualifier = text[: found.start()].rstrip(), found.group() + text[found.end() :]
    # A value only; a tail that defines something, or gives another case, is part of the answer.
    if not value or _LONG_WORD.search(value):
        return text, ""
    if _DEFINES.search(_FIRST_FOR.sub("", qualifier, count=1)):
        return text, ""
    return value, qualifier


def _said(qualifier: str) -> str:
    return _QUANTIFIER.sub("", qualifier).lower()


def _by_comma(a: str, b: str) -> list[tuple[str, str]]:
    """Both answers for each of the things that a comma may mean in them."""
    if "," not in a + b:
        return [(a, b)]
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


def normalize(text: str) -> str:
    """Apply `RULES` to one answer.

    Args:
        text: An answer of at most `LONGEST` characters; a longer one only loses outer spaces.

    Returns:
        The answer in the one notation that the later stages read.
    """
    if len(text) > LONGEST:
        return text.strip()
    for rule in RULES:
        if not rule.needles or any(needle in text for needle in rule.needles):
            text = rule.pattern.sub(rule.replacement, text)
    return strip_braces(text.strip())
