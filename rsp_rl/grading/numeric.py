r"""Numbers as models write them, read exactly, and when two of them are equal.

A number is read to an exact fraction, so that nothing overflows and ``2^{2000}`` never looks close
to ``2^{2001}``. Only literals are read here (integers, decimals, exponents, fractions, mixed
numbers, percentages, numerals in a base); arithmetic belongs to the symbolic stage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

REL_TOL = Fraction(1, 10_000)
"""Relative tolerance between two numbers of which one is a rounded decimal (paper A.2)."""

_LONGEST_INTEGER = 2000  # digits
_LARGEST_EXPONENT = 400

_UNSIGNED = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_DECIMAL = re.compile(rf"({_UNSIGNED})(?:[eE]([-+]?[0-9]+))?$")
_SCIENTIFIC = re.compile(
    rf"(?:({_UNSIGNED})(?:\\times|\\cdot|\*|x))?10\^(?:\{{([-+]?[0-9]+)\}}|([0-9]))$"
)
_FRACTION = re.compile(rf"([0-9]+)?(?:\\frac\{{([-+]?{_UNSIGNED})\}}\{{([-+]?{_UNSIGNED})\}})$")
_SLASH = re.compile(rf"(?:([0-9]+)\s+)?\(?({_UNSIGNED})\)?/\(?([-+]?{_UNSIGNED})\)?$")
_APART = re.compile(r"[0-9]\s+[0-9]")
_BASE = re.compile(r"\(?([0-9A-F]+|[0-9a-f]{2,})\)?_\{?([0-9]{1,2})\}?$")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number read from a literal.

    Attributes:
        value: Its exact value, of the digits before a percent sign. With a base other than ten, a
            mere code of the digits: two numerals in the same base are equal if their codes are.
        rounded: Whether it is written with a decimal point or an exponent, hence approximate.
        percent: Whether a percent sign follows.
        base: The base it is written in, ``None`` for plain decimal notation.
    """

    value: Fraction
    rounded: bool = False
    percent: bool = False
    base: int | None = None


def read_numeral(text: str) -> Numeral | None:
    """Read a normalised text that is one number and nothing else, or return ``None``."""
    if len(text) > _LONGEST_INTEGER or not any("0" <= char <= "9" for char in text):
        return None
    text = text.strip()
    percent = text.endswith("%")
    if percent:
        text = text[:-1].rstrip()
    sign = 1
    while text[:1] in ("-", "+"):
        sign = -sign if text[0] == "-" else sign
        text = text[1:].lstrip()
    based = _BASE.match(text)
    if based:
        base = int(based[2])
        if base == 10 and not based[1].isdigit():
            return None
        return Numeral(Fraction(sign * int(based[1], 10 if base == 10 else 16)), base=base)
    read = _read_unsigned(text)
    if read is None:
        return None
    value, rounded = read
    return Numeral(sign * value, rounded, percent)


def equal_numerals(prediction: Numeral, gold: Numeral) -> bool:
    """Whether two numbers are the same answer.

    Integers and exact fractions must be equal exactly; a rounded decimal may be off by `REL_TOL`.

    Decisions where the benchmarks leave it open:
        - A percent sign on one side only may be read as a hundredth or as a mere label. Golds of
          "what percentage" are often bare ("25"), and answers to them have the sign; without any
          sign, a factor of 100 is wrong.
        - A gold in a base may be answered by its bare digits, because its problem names the base
          and often asks for no index. An index, where there is one, must be the same, and a bare
          gold is never equal to digits in another base.
    """
    if gold.base not in (None, 10):
        if prediction.base is None and _exact_integer(prediction):
            return Fraction(int(str(prediction.value), 16)) == gold.value
        return prediction == gold
    if prediction.base not in (None, 10):
        return False
    if _close(prediction, gold, Fraction(1)):
        return True
    if prediction.percent == gold.percent:
        return False
    return _close(
        prediction, gold, Fraction(100 if gold.percent else 1, 1 if gold.percent else 100)
    )


def _close(prediction: Numeral, gold: Numeral, factor: Fraction) -> bool:
    a, b = prediction.value * factor, gold.value
    if a == b:
        return True
    if not (prediction.rounded or gold.rounded):
        return False
    if _exact_integer(gold) or (_exact_integer(prediction) and factor == 1):
        return False
    return abs(a - b) <= REL_TOL * max(abs(a), abs(b))


def _exact_integer(number: Numeral) -> bool:
    return number.value.denominator == 1 and not number.rounded


def _read_unsigned(text: str) -> tuple[Fraction, bool] | None:
    """Value and whether it is rounded; ``27.0`` counts as the integer 27."""
    compact = "" if _APART.search(text) else text.replace(" ", "")
    found = _DECIMAL.match(compact)
    if found and " " not in text:
        exponent = int(found[2] or 0) if len(found[2] or "") < 5 else _LARGEST_EXPONENT + 1
        if abs(exponent) > _LARGEST_EXPONENT:
            return None
        mantissa = Fraction(found[1])
        whole = mantissa.denominator == 1 and found[2] is None
        return mantissa * Fraction(10) ** exponent, not whole
    found = _SCIENTIFIC.match(compact)
    if found:
        exponent = int(found[2] or found[3])
        if abs(exponent) > _LARGEST_EXPONENT:
            return None
        return Fraction(found[1] or 1) * Fraction(10) ** exponent, found[1] is not None
    found = _FRACTION.match(compact) or _SLASH.match(text)
    if found:
        return _quotient(found[1], found[2], found[3])
    return None


def _quotient(whole: str | None, top: str, bottom: str) -> tuple[Fraction, bool] | None:
    numerator, denominator = Fraction(top), Fraction(bottom)
    if denominator == 0:
        return None
    value = numerator / denominator
    if whole is not None:
        if not 0 <= value < 1 or "." in top + bottom or "-" in top + bottom:
            return None
        value += int(whole)
    return value, numerator.denominator != 1 or denominator.denominator != 1
