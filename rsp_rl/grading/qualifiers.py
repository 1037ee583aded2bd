r"""What an answer says of its letters behind its value: ``f(x)=cx for any constant c``.

A reference often says it and an answer does not, or the other way round; the value is what counts.
"""

from __future__ import annotations

import re

_BOUND = r"[a-zA-Z](?:_\{?\w\}?)?"
_NUMBERS = (
    r"\s*\\in(?![a-zA-Z])\s*(?:\\mathbb\s*\{?\s*[ZNRQC]\s*\}?|[ZNRQC](?![a-zA-Z]))"
    r"(?:[_^]\{?[\w*+]+\}?)?"
)
_QUANTIFIED = (
    r"for\s+(?:(?:any|all|some|every|each|arbitrary|constant|real|integers?)\b"
    r"|(?=[a-zA-Z](?:\s*,\s*[a-zA-Z])*\s*(?:[<>]|\\(?:in|[lg]e|neq)(?![a-zA-Z]))))"
)
_WHERE = (
    r"where|with|provided(?:\s+that)?|whenever|when|if|assuming|given(?:\s+that)?|as\s+long\s+as"
)
_QUALIFIER = re.compile(
    r"[\s,;]{0,9}\(?\s*(?:\\(?:text|mathrm|mbox)\s*\{[\s,(]*(?:for|" + _WHERE + r")\b"
    r"|\b" + _QUANTIFIED + r"|\b(?:" + _WHERE + r")\b|\\forall(?![a-zA-Z]))"
    r"|\s*[,;(]\s*(?:" + _BOUND + r"\s*,\s*){0,3}" + _BOUND + _NUMBERS + r"\s*\)?\s*$"
    r"|\s*[,;(]\s*" + _BOUND + r"\s*\\text\s*\{(?:\s*(?:is|are|an?|any|arbitrary|real|positive))*"
    r"\s*(?:constants?|integers?|numbers?)\b",
    re.IGNORECASE,
)  # fmt: skip
_RANGE = re.compile(  # , c>0
    r"\s*[,;(]\s*(" + _BOUND + r")\s*(?:[<>]|\\(?:[lg]e|neq)(?![a-zA-Z]))\s*-?[\d.]+\s*\)?\s*$"
)
_INEQUALITY = re.compile(r"[<>]|\\(?:[lg]e|neq|in)(?![a-zA-Z])")
_QUALIFIER_BEFORE = re.compile(
    r"\s*(?:\\text\s*\{\s*)?" + _QUANTIFIED + r"[^,]{0,80},", re.IGNORECASE
)
_LONG_WORD = re.compile(r"(?<![\\a-zA-Z])(?!(?:and|or)\b)[a-zA-Z]{3,}")
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")
_QUANTIFIES = re.compile(r"\bfor\b|\\forall", re.IGNORECASE)
_DEFINES = re.compile(r"(?<!\\)=|\b(?:for|if)\b", re.IGNORECASE)
_QUANTIFIER = re.compile(
    r"\\(?:text|mathrm|mbox|forall)(?![a-zA-Z])|\b(?:any|all|some|every|each|arbitrary|constants?"
    r"|real|numbers?|integers?|where|with|if|when|assuming|given|for|is|are|an?)\b|[\s{},;()]|\\in\s*\\mathbb\s*\{?\s*[ZR]\s*\}?",
    re.IGNORECASE,
)
_MARKS_OF_QUALIFIERS = (
    "or ", "OR ", "if ", "when", "assuming", "given", "as long", "where", "with", "provided",
    "whenever", "\\forall", "\\in", "<", ">", "\\ge",
    "\\le", "\\neq", "constant", "integer", "number",
)  # fmt: skip
_FIRST_FOR = re.compile(r"\b(?:for|if)\b", re.IGNORECASE)


def without_qualifiers(prediction: str, gold: str) -> tuple[str, str]:
    """Two answers less what they say of their letters, if one says nothing or both the same.

    Where both differ in it, ``x`` for ``x>0`` and ``x`` for ``x<0``, they stay as they are.

    Args:
        prediction: An answer in the notation of `rsp_rl.grading.normalize`.
        gold: The gold, in the same.
    """
    value, qualifier = _qualified(prediction)
    gold_value, gold_qualifier = _qualified(gold)
    if qualifier and gold_qualifier and _said(qualifier) != _said(gold_qualifier):
        return prediction, gold
    return value, gold_value


def _qualified(text: str) -> tuple[str, str]:
    """An answer as its value and a qualifier: ``cx`` and ``for any constant c``."""
    if not any(mark in text for mark in _MARKS_OF_QUALIFIERS):
        return text, ""
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
    # "With remainder 2" is part of the answer; "with c>0" says of what it is made.
    if not _QUANTIFIES.search(qualifier) and "\\in" not in qualifier:
        letters = set(re.sub(r"\\[a-zA-Z]+", " ", value)) & set(_LETTER.findall(qualifier))
        return (value, qualifier) if letters else (text, "")
    return value, qualifier


def _said(qualifier: str) -> str:
    return _QUANTIFIER.sub("", qualifier).lower()
