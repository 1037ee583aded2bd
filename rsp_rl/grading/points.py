r"""Whether two expressions are equal, judged by their values at a few fixed points.

Expressions that agree at several generic points are equal, and expressions that do not are not;
this takes no time worth speaking of, where ``simplify`` may take for ever. Rational values are
exact fractions, so that nothing overflows and ``2^{2000}`` is never close to ``2^{2001}``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rsp_rl.grading.numeric import REL_TOL

_SCALES = (1, 2, 7, 19)
POINTS = len(_SCALES)
_POINTS_OF_STEPS = 32
_NEGATIVE, _MIXED = 4, 12
"""Further points: in the first of them all symbols are below 0, in the others some are."""

_ROUNDED_FUNCTION = 1e-5


class Unknown(Exception):
    """The expression has no value that can be computed within the limits."""


@dataclass(frozen=True, slots=True)
class Expression:
    r"""Something with a value at every point.

    Attributes:
        at: Value at the point of that index: a `Fraction` where it is rational, else a real or
            complex number. Raises `Unknown`, or `ZeroDivisionError` where it is not defined.
        closed: Whether it has no unknowns, so that one point is enough.
        rounded: Whether a rounded decimal occurs in it.
        stepped: Whether it has steps, such as ``\lfloor x\rfloor``: different ones often agree.
        branched: Whether it has bars, roots or their like, so that it may be ``x`` above 0 and
            something else below.
    """

    at: Callable[[int], Any]
    closed: bool
    rounded: bool
    stepped: bool = False
    branched: bool = False


@dataclass(frozen=True, slots=True)
class Precision:
    """What counts as equal.

    Attributes:
        same: Relative differences up to this are noise.
        different: Relative differences above this are not; between the two nobody can tell.
        zero: A computed value below this may be an exact zero.
        sure_of_zero: Whether it then is one, or only may be.
    """

    same: float
    different: float
    zero: float = 0.0
    sure_of_zero: bool = True


@lru_cache(maxsize=4096)
def symbol_value(name: str, index: int) -> Fraction:
    r"""The value of a symbol at a point: above 0, and at a point of index below 0 of either sign.

    Where all is above 0 every root and logarithm is defined; there ``|x|`` is ``x``.
    """
    digest = hashlib.blake2b(f"{index}:{name}".encode("utf-8", "replace"), digest_size=4).digest()
    drawn = int.from_bytes(digest, "big")
    # Points of different sizes, because floor(n/2) and floor(n/3) agree for small n.
    size = Fraction((drawn % 1997 + 300) * _SCALES[index % POINTS], 1009)
    return -size if -_NEGATIVE <= index < 0 or (index < 0 and drawn >> 31) else size


def equal_expressions(a: Expression, b: Expression, precision: Precision) -> bool | None:
    """Whether two expressions are equal; ``b`` is the gold. ``None`` if that cannot be told."""
    closed = a.closed and b.closed
    agreed = unknown = 0  # e^{x^4} is too large at some points; two others will do
    points = _POINTS_OF_STEPS if a.stepped or b.stepped else POINTS
    for index in range(1 if closed else points):
        try:
            x, y = a.at(index), b.at(index)
            limits = precision
            if a.rounded or b.rounded:
                limits = _tolerance(y, b, closed, precision)
            decision = _close(x, y, limits)
        except ZeroDivisionError:
            continue
        except (Unknown, OverflowError):
            unknown += 1
            continue
        if not decision:
            return decision
        agreed += 1
    if agreed < (2 if unknown else 1):
        return None
    if not closed and (a.branched or b.branched):
        limits = precision
        if a.rounded or b.rounded:
            limits = Precision(_ROUNDED_FUNCTION, _ROUNDED_FUNCTION)
        return not any(_close(x, y, limits) is False for x, y in _of_either_sign((a, b)))
    return True


def _of_either_sign(expressions: tuple[Expression, ...]) -> Iterator[tuple[Any, ...]]:
    """The values where symbols are of either sign, at those points where all of them are real."""
    for index in range(-1, -_MIXED - 1, -1):
        try:
            values = tuple(expression.at(index) for expression in expressions)
        except (ZeroDivisionError, Unknown, OverflowError):
            continue
        # By type: the product of two roots of numbers below 0 is no real function of them.
        if not any(type(value).__name__ in ("complex", "mpc") for value in values):
            yield values


def proportional(
    first: tuple[Expression, Expression],
    second: tuple[Expression, Expression],
    precision: Precision,
    *,
    sign: int = 0,
) -> bool | None:
    """Whether ``first[0] - first[1]`` is a constant multiple of ``second[0] - second[1]``.

    Args:
        first: Left and right side of a relation.
        second: Left and right side of another.
        precision: Of the values.
        sign: What sign the constant must have, 0 for any.
    """
    if all(side.closed for side in (*first, *second)):
        return False  # between two statements about numbers the ratio is always constant
    ratios = []
    for index in range(POINTS):
        try:
            values = [side.at(index) for side in (*first, *second)]
            x, y = _alike(_difference(*values[:2]), _difference(*values[2:]))
            if abs(x) < 1e-9 or abs(y) < 1e-9:
                return False if (abs(x) < 1e-9) != (abs(y) < 1e-9) else None
            ratios.append(x / y)
        except ZeroDivisionError:
            continue
        except (Unknown, OverflowError):
            return None
    if len(ratios) < 2:
        return None
    if sign and (abs(ratios[0].imag) > 1e-9 * abs(ratios[0]) or ratios[0].real * sign < 0):
        return False
    rounded = any(side.rounded for side in (*first, *second))
    limits = Precision(_ROUNDED_FUNCTION, _ROUNDED_FUNCTION) if rounded else precision
    sides = (*first, *second)
    if any(side.branched for side in sides):
        for values in _of_either_sign(sides):
            x, y = _alike(_difference(*values[:2]), _difference(*values[2:]))
            if min(abs(x), abs(y)) >= 1e-9:
                ratios.append(x / y)
    decisions = [_close(ratio, ratios[0], limits) for ratio in ratios[1:]]
    return False if False in decisions else None if None in decisions else True


def _tolerance(value: Any, gold: Expression, closed: bool, precision: Precision) -> Precision:
    """How far a rounded expression may be off: integers not at all."""
    if not closed:
        return Precision(_ROUNDED_FUNCTION, _ROUNDED_FUNCTION)
    if not gold.rounded and isinstance(value, Fraction) and value.denominator == 1:
        return precision
    return Precision(float(REL_TOL), float(REL_TOL))


def _close(x: Any, y: Any, limits: Precision) -> bool | None:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        if x == y:
            return True
        if limits.same < 1e-6:
            return False
        return abs(x - y) <= Fraction(limits.same) * max(abs(x), abs(y))
    x, y = _alike(x, y)
    size = max(abs(x), abs(y))
    off = abs(x - y)
    if off <= limits.same * size:
        return True
    if size <= limits.zero and min(abs(x), abs(y)) == 0:
        return True if limits.sure_of_zero else None
    return False if off > limits.different * size else None


def _difference(x: Any, y: Any) -> Any:
    x, y = _alike(x, y)
    return x - y


def _alike(x: Any, y: Any) -> tuple[Any, Any]:
    """Two values in one arithmetic: a fraction beside another number becomes such a number."""
    if isinstance(x, Fraction) and not isinstance(y, Fraction):
        return _as(type(y), x), y
    if isinstance(y, Fraction) and not isinstance(x, Fraction):
        return x, _as(type(x), y)
    return x, y


def _as(kind: type, value: Fraction) -> Any:
    """A fraction as a float or complex, or as an mpmath number with all of its digits.

    Raises:
        OverflowError: Too large for a float.
    """
    if kind in (float, complex):
        return kind(value)
    return kind(value.numerator) / kind(value.denominator)
