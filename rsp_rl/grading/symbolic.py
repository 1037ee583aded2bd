r"""The symbolic stage: expressions parsed by a library and compared at fixed points.

Imported by worker processes only (`rsp_rl.grading.worker`), never by the process that trains.

LaTeX is parsed by latex2sympy2_extended (the parser of Math-Verify) into unevaluated SymPy trees.
Two trees are then evaluated, exactly where they are rational and with 40 digits elsewhere, at
a few fixed points: expressions that agree at all of them are equal. Unlike ``simplify`` this takes
no time worth speaking of and tells ``2^{2000}`` from ``2^{2001}``; trees it cannot evaluate must
be identical.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import mpmath
import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from sympy.core.function import AppliedUndef

from rsp_rl.grading import units
from rsp_rl.grading.leaves import compare_leaves, unwrap
from rsp_rl.grading.numeric import REL_TOL

_LONGEST = 1500  # characters of a leaf
_DEEPEST = 40  # nested brackets
_LARGEST_EXPONENT = 5000
_MOST_BITS = 200_000
_POINTS = 4
_FORBIDDEN = re.compile(
    r"\\(?:xrightarrow|operatorname|begin|input|write|def|newcommand|let|csname|lim|mathop)\b"
    r"|\d{400}|\\binom\s*\{[^{}]*\d{5}|\d{5,}\s*!|!\s*!"
)
_MIXED = re.compile(r"(?<![\d.}^_])(?<![}^_]\s)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}")
_PRIMES = re.compile(r"([a-zA-Z])('+)")
_mp = mpmath.mp.clone()
_mp.dps = 40


class Unreadable(Exception):
    """The text is not an expression that can be read, or it is refused before parsing."""


class Unknown(Exception):
    """The expression has no value that could be computed within the limits."""


class SymbolicComparer:
    """Leaves compared by algebra; implements `rsp_rl.grading.equivalence.Comparer`.

    Attributes:
        unparsable: Whether some leaf could not be read.
    """

    def __init__(self) -> None:
        self.unparsable = False

    def value(self, prediction: str, gold: str) -> bool:
        """Whether two leaves are equal as expressions."""
        decision, _ = compare_leaves(prediction, gold)
        if decision is not None:
            return decision
        try:
            return _equal_expressions(_parse(prediction), _parse(gold))
        except Unreadable:
            self.unparsable = True
            return False

    def equation(self, prediction: tuple[str, str], gold: tuple[str, str]) -> bool:
        """Whether two equations agree up to a factor that has no unknown in it."""
        try:
            (a, b), (c, d) = map(_parse, prediction), map(_parse, gold)
        except Unreadable:
            self.unparsable = True
            return False
        return _proportional((a, b), (c, d))


def _parse(leaf: str) -> sympy.Expr:
    """Parse one leaf; raises `Unreadable`."""
    return _parse_prepared(_prepare(leaf))


def _prepare(leaf: str) -> str:
    value, _ = units.split(leaf)
    text = unwrap(value)
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = re.sub(r"(\d)\s*\(", r"\1\\cdot (", text)
    text = re.sub(r"(\d+\.?\d*|\.\d+)\s*%", r"(\1/100)", text)
    text = re.sub(r"(?<![\d])\.(?=\d)", "0.", text)
    text = _PRIMES.sub(lambda m: f"{m[1]}_{{prime{len(m[2])}}}", text)
    # The lexer keeps E for scientific notation and I for the imaginary unit.
    return re.sub(r"(\\[a-zA-Z]+)|([EI])", lambda m: m[1] or rf"\mathrm{{{m[2]}}}", text)


@lru_cache(maxsize=4096)
def _parse_prepared(text: str) -> sympy.Expr:
    if len(text) > _LONGEST or _depth(text) > _DEEPEST or _FORBIDDEN.search(text):
        raise Unreadable(text[:80])
    try:
        tree = latex2sympy(
            text,
            is_real=True,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
    except MemoryError:
        raise
    except Exception as error:  # the parser raises bare Exception for any syntax error
        raise Unreadable(text[:80]) from error
    if not isinstance(tree, sympy.Expr):
        raise Unreadable(text[:80])
    return tree


def _depth(text: str) -> int:
    deepest = depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _equal_expressions(a: sympy.Expr, b: sympy.Expr) -> bool:
    if a == b:
        return True
    closed = not (a.free_symbols | b.free_symbols)
    rounded = bool(a.atoms(sympy.Float) | b.atoms(sympy.Float))
    if rounded and closed and not b.is_Integer:
        tolerance = _mp.mpf(REL_TOL.numerator) / REL_TOL.denominator
    elif rounded and not closed:
        tolerance = _mp.mpf(10) ** -5
    else:
        tolerance = _mp.mpf(10) ** -20
    agreed = 0
    for index in range(1 if closed else _POINTS):
        try:
            x, y = _Evaluation(index)(a), _Evaluation(index)(b)
        except Unknown:
            return False
        except ZeroDivisionError:
            continue
        if not _close(x, y, tolerance):
            return False
        agreed += 1
    return agreed > 0


def _proportional(first: tuple, second: tuple) -> bool:
    """Whether ``first[0] - first[1]`` is a constant multiple of ``second[0] - second[1]``."""
    ratios = []
    for index in range(_POINTS):
        at = _Evaluation(index)
        try:
            x, y = (_to_mp(at(left)) - _to_mp(at(right)) for left, right in (first, second))
        except Unknown:
            return False
        except ZeroDivisionError:
            continue
        if abs(x) < 1e-25 or abs(y) < 1e-25:
            return False
        ratios.append(x / y)
    return len(ratios) > 1 and all(_close(r, ratios[0], _mp.mpf(10) ** -15) for r in ratios[1:])


def _close(x, y, tolerance) -> bool:
    if isinstance(x, Fraction) and isinstance(y, Fraction) and x == y:
        return True
    if isinstance(x, Fraction) and isinstance(y, Fraction) and tolerance < 1e-10:
        return False
    x, y = _to_mp(x), _to_mp(y)
    return abs(x - y) <= max(tolerance * max(abs(x), abs(y)), _mp.mpf(10) ** -35)


def _to_mp(value):
    if isinstance(value, Fraction):
        return _mp.mpf(value.numerator) / value.denominator
    return value


class _Evaluation:
    """Evaluates a tree at one point: every symbol has a fixed value that its name decides.

    Values are positive, so that ``\\sqrt{x^2}`` is ``x`` as the textbooks have it.

    Args:
        index: Which of the points.
    """

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, tree: sympy.Basic):
        """The value as `Fraction` or mpmath number; raises `Unknown` or `ZeroDivisionError`."""
        if isinstance(tree, sympy.Rational):
            return Fraction(int(tree.p), int(tree.q))
        if isinstance(tree, sympy.Float):
            return Fraction(str(tree))
        if isinstance(tree, sympy.Symbol):
            return _mp.mpc(0, 1) if tree.name == "i" else self._opaque(tree.name)
        if isinstance(tree, sympy.Add):
            return self._fold(tree.args, lambda x, y: x + y, Fraction(0))
        if isinstance(tree, sympy.Mul):
            return self._fold(tree.args, lambda x, y: x * y, Fraction(1))
        if isinstance(tree, sympy.Pow):
            return _power(self(tree.base), self(tree.exp))
        if isinstance(tree, sympy.UnevaluatedExpr):
            return self(tree.args[0])
        if tree in _CONSTANTS:
            return _CONSTANTS[tree]
        function = _FUNCTIONS.get(type(tree).__name__)
        if function is not None:
            try:
                return function(*(_to_mp(self(argument)) for argument in tree.args))
            except (ValueError, TypeError, OverflowError) as error:
                raise Unknown(str(tree.func)) from error
        if isinstance(tree, AppliedUndef):
            arguments = ",".join(str(_to_mp(self(argument))) for argument in tree.args)
            return self._opaque(f"{tree.func.__name__}({arguments})")
        if isinstance(tree, sympy.Derivative | sympy.Integral | sympy.Sum | sympy.Product):
            return self._opaque(sympy.srepr(tree))
        raise Unknown(type(tree).__name__)

    def _fold(self, arguments, operation: Callable, value):
        for argument in arguments:
            x = self(argument)
            if not (isinstance(x, Fraction) and isinstance(value, Fraction)):
                x, value = _to_mp(x), _to_mp(value)
            value = operation(value, x)
        return value

    def _opaque(self, name: str) -> Fraction:
        digest = hashlib.blake2b(f"{self.index}:{name}".encode(), digest_size=4).digest()
        return Fraction(int.from_bytes(digest, "big") % 1997 + 300, 1009)


def _power(base, exponent):
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        n = int(exponent)
        if base == 0 and n <= 0:
            if n == 0:
                return Fraction(1)
            raise ZeroDivisionError
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if abs(n) * bits > _MOST_BITS:
                raise Unknown("power")
            return base**n
        if abs(n) > _LARGEST_EXPONENT:
            raise Unknown("power")
        return base**n
    if isinstance(base, Fraction) and base < 0 and isinstance(exponent, Fraction):
        if exponent.denominator % 2:  # the real root, as \sqrt[3]{-8} is meant
            root = -_power(-base, Fraction(1, exponent.denominator))
            return _power(root, Fraction(exponent.numerator))
    base, exponent = _to_mp(base), _to_mp(exponent)
    if base == 0:
        if _mp.re(exponent) > 0:
            return Fraction(0)
        raise ZeroDivisionError
    if abs(exponent) > _LARGEST_EXPONENT:
        raise Unknown("power")
    return _mp.power(base, exponent)


def _factorial(x):
    if abs(x) > 3000:
        raise Unknown("factorial")
    return _mp.factorial(x)


def _binomial(n, k):
    if abs(n) > 5000 or abs(k) > 5000:
        raise Unknown("binomial")
    return _mp.binomial(n, k)


def _log(x, base=None):
    if x == 0:
        raise ZeroDivisionError
    return _mp.log(x) if base is None else _mp.log(x) / _mp.log(base)


_CONSTANTS = {sympy.pi: _mp.pi + 0, sympy.E: _mp.e + 0, sympy.I: _mp.mpc(0, 1)}
_FUNCTIONS: dict[str, Callable] = {
    "exp": lambda x: _power(_mp.e + 0, x), "log": _log, "Abs": abs, "factorial": _factorial,
    "binomial": _binomial, "gamma": lambda x: _factorial(x - 1), "floor": _mp.floor,
    "ceiling": _mp.ceil, "sin": _mp.sin, "cos": _mp.cos, "tan": _mp.tan, "cot": _mp.cot,
    "sec": _mp.sec, "csc": _mp.csc, "asin": _mp.asin, "acos": _mp.acos, "atan": _mp.atan,
    "acot": _mp.acot, "asec": _mp.asec, "acsc": _mp.acsc, "sinh": _mp.sinh, "cosh": _mp.cosh,
    "tanh": _mp.tanh, "asinh": _mp.asinh, "acosh": _mp.acosh, "atanh": _mp.atanh,
    "Mod": _mp.fmod, "Max": max, "Min": min,
}  # fmt: skip
