"""What the arithmetic subset computes with: fractions as long as they are exact, then doubles.

Every operation takes and gives `Fraction`, `float` or `complex`. It raises `Unknown` where a
number's size, a branch or a rounding error would decide, and Python's own errors where it has no
value.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from rsp_rl.grading.points import Unknown

_MOST_BITS = 40_000
_LARGEST_ARGUMENT = 1e6  # of functions whose double precision value is then mere noise


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def power(base: Any, exponent: Any) -> Any:
    """A power; exact where base and exponent are, principal where the base is complex.

    Raises:
        Unknown: If it is too large, or a real base below 0 has no whole exponent.
    """
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        n = int(exponent)
        if isinstance(base, Fraction):
            if abs(n) * _bits(base) > _MOST_BITS:
                raise Unknown("power")
            return base**n
        return base**n
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator <= 12:
        if abs(exponent.numerator) > 60:
            raise Unknown("power")
        return root(base, Fraction(exponent.denominator)) ** exponent.numerator
    if isinstance(base, complex) or isinstance(exponent, complex):
        return cmath.exp(complex(exponent) * cmath.log(complex(base)))
    if base < 0:
        raise Unknown("branch")
    return float(base) ** float(exponent)


def root(value: Any, degree: Any) -> Any:
    """A root; of a fraction exact where it can be, of a number below 0 real for an odd degree.

    Raises:
        Unknown: If the value is below 0 and the degree even and above 2, or as `power` raises.
    """
    if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree <= 60:
        return power(value, 1 / degree)
    n = int(degree)
    if isinstance(value, complex):
        return value ** (1 / n)
    if value < 0:
        if n % 2:
            return -root(-value, degree)
        if n > 2:
            raise Unknown("branch")
        return 1j * root(-value, degree)
    if isinstance(value, Fraction):
        exact = [_integer_root(part, n) for part in (value.numerator, value.denominator)]
        if None not in exact:
            return Fraction(*exact)
    return float(value) ** (1 / n)


def _integer_root(value: int, n: int) -> int | None:
    if value.bit_length() > 900:
        return None
    found = round(value ** (1 / n)) if n > 2 else math.isqrt(value)
    return found if found**n == value else None


def ln(value: Any) -> Any:
    """The natural logarithm, principal where the value is not above 0.

    Raises:
        ZeroDivisionError: If the value is 0.
    """
    if value == 0:
        raise ZeroDivisionError
    if isinstance(value, complex) or value < 0:
        return cmath.log(complex(value))
    return Fraction(0) if value == 1 else math.log(value)


def _real(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """A function of the standard library, for real values where it is defined."""

    def apply(value: Any) -> Any:
        if isinstance(value, complex) or abs(value) > _LARGEST_ARGUMENT:
            raise Unknown("argument")
        return function(float(value))

    return apply


def _inverse(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """One over a function."""
    return _real(lambda value: 1 / function(value))


def _exp(value: Any) -> Any:
    return cmath.exp(value) if isinstance(value, complex) else math.exp(value)


def _floor(value: Any) -> Fraction:
    if not isinstance(value, Fraction):
        raise Unknown("floor")  # a rounding error may cross an integer
    return Fraction(math.floor(value))


def _ceiling(value: Any) -> Fraction:
    return -_floor(-value)


def binomial(n: Any, k: Any) -> Fraction:
    """A binomial coefficient.

    Raises:
        Unknown: Unless both are whole numbers and 0 <= k <= n <= 2000.
    """
    if not (isinstance(n, Fraction) and isinstance(k, Fraction)):
        raise Unknown("binomial")
    if n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= 2000:
        raise Unknown("binomial")
    return Fraction(math.comb(int(n), int(k)))


def factorial(value: Any) -> Fraction:
    """A factorial.

    Raises:
        Unknown: Unless the value is a whole number from 0 to 1500.
    """
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= 1500:
        raise Unknown("factorial")
    return Fraction(math.factorial(int(value)))


#: By macro: functions of one argument.
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "\\sin": _real(math.sin), "\\cos": _real(math.cos), "\\tan": _real(math.tan),
    "\\csc": _inverse(math.sin), "\\sec": _inverse(math.cos), "\\cot": _inverse(math.tan),
    "\\arcsin": _real(math.asin), "\\arccos": _real(math.acos), "\\arctan": _real(math.atan),
    "\\sinh": _real(math.sinh), "\\cosh": _real(math.cosh), "\\tanh": _real(math.tanh),
    "\\exp": _exp, "\\ln": ln,
}  # fmt: skip

#: By opening macro: the closing one, and what it does.
ROUNDING = {"\\lfloor": ("\\rfloor", _floor), "\\lceil": ("\\rceil", _ceiling)}
