"""Numbers in English words, ``twenty-one`` or ``minus two thirds``, as numerals."""

from __future__ import annotations

import re

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: number for number, word in enumerate(_UNITS)} | {
    word: 10 * number for number, word in enumerate(_TENS, start=2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6,
    "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10, "hundredth": 100, "thousandth": 1000,
}  # fmt: skip
_LONGEST = 80
_WORDS = re.compile(r"[a-z]+(?:[\s-]+[a-z]+)*")


def read_number_words(text: str) -> str | None:
    """The numeral that words stand for, ``None`` if they are no number.

    Args:
        text: A leaf without its wrappers.
    """
    text = text.strip().lower()
    percent = "%" if text.endswith("%") else ""
    text = text.removesuffix("%").rstrip()
    if len(text) > _LONGEST or not _WORDS.fullmatch(text):
        return None
    mixed, _, part = text.rpartition(" and ")
    words = re.split(r"[\s-]+", text)
    sign = "-" if words[0] in ("minus", "negative") else ""
    words = words[1:] if sign else words
    if words == ["half"]:
        return f"{sign}1/2"
    bottom = _PARTS.get(words[-1].removesuffix("s"), _PARTS.get(words[-1])) if words else None
    if bottom and mixed:  # two and a half
        whole, fraction = read_number_words(mixed), read_number_words(part)
        return f"{whole} {fraction}" if whole and fraction else None
    if bottom and len(words) > 1:
        top = 1 if words[:-1] in (["a"], ["an"]) else _whole(words[:-1])
        return None if top is None or top == 0 else f"{sign}{top}/{bottom}"
    whole = _whole(words)
    return None if whole is None else f"{sign}{whole}{percent}"


def _whole(words: list[str]) -> int | None:
    """A cardinal number: groups of up to three digits, the largest first."""
    if words == ["zero"]:
        return 0
    total, group, last, smallest = 0, 0, 1000, 10**12
    for word in words:
        if word == "and" and group % 100 == 0 and group:
            continue
        if word == "hundred" and 0 < group < 10:
            group, last = group * 100, 100
        elif word in _SCALES and group and _SCALES[word] < smallest:
            smallest = _SCALES[word]
            total, group, last = total + group * smallest, 0, 1000
        elif word in _SMALL and 0 < _SMALL[word] < min(last, 100) and last != 1:
            value = _SMALL[word]
            if last < 100 and not (last >= 20 and value < 10):
                return None
            group, last = group + value, value if value >= 20 else 1
        else:
            return None
    return total + group or None
