r"""The symbolic stage: expressions parsed by a library and compared at fixed points.

Imported by worker processes only (`rsp_rl.grading.worker`), never by the process that trains.
LaTeX is parsed by latex2sympy2_extended (the parser of Math-Verify) into unevaluated SymPy trees;
the trees are evaluated exactly where they are rational and with 40 digits elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath
import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from sympy.core.function import AppliedUndef

from rsp_rl.grading import units
from rsp_rl.grading.arithmetic import FUNCTION_LETTERS
from rsp_rl.grading.leaves import compare_leaves, unwrap
from rsp_rl.grading.points import (
    Expression,
    Precision,
    Unknown,
    equal_expressions,
    proportional,
    symbol_value,
)

PRECISION = Precision(same=1e-20, different=1e-20, zero=1e-25)
"""Of values computed with 40 digits."""

_LONGEST = 1200  # characters of a leaf
_DEEPEST = 40  # nested brackets
_LARGEST_EXPONENT = 5000
_MOST_BITS = 200_000
_FORBIDDEN = re.compile(
    r"\\(?:xrightarrow|operatorname|input|write|def|newcommand|let|csname|mathop)\b"
    r"|\d{400}|\\binom\s*\{[^{}]*\d{5}|\d{5,}\s*!|!\s*!"
    r"|(?<![\d_^.])\d+(?:\.\d+)?\s+\d|!\s*\d+(?![\d\s]*!)"  # 1 0 is no product
    r"|\d\s*_"  # the parser drops an index of a number
    r"|(?<![\\a-zA-Z])[a-z]{2,}\s+\d"  # words, as in "at least 5"
)
_MIXED = re.compile(r"(?<![\d.}^_])(?<![}^_]\s)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}")
_FACTOR_BEFORE_BRACKET = re.compile(
    r"\\[a-zA-Z]+|(?<![\^_\d.])(\d+(?:\.\d+)?)\s*(?=\()|(?<!_)([a-zA-Z])\s*(?=\()"
)
_WORD = re.compile(
    r"(?<![_\\])(?<!_\{)(?<!_\s)\\(?:text\w*|mbox)\s*\{\s*[a-zA-Z]{3,}|(?<![a-zA-Z\\{])[a-z]{6,}"
)
_MODULUS = re.compile(r"%\s*(?:[\w.(\[{|]|\\(?:frac|sqrt|pi)(?![a-zA-Z]))")  # 7 % 3, as in Python
_GAMMA = re.compile(r"\\(gamma(?![a-zA-Z])|Gamma(?!\s*[a-zA-Z(]))")  # not the function
_PRIMES = re.compile(r"([a-zA-Z])('+)")
_mp = mpmath.mp.clone()
_mp.dps = 40


class Unreadable(Exception):
    """The text is not mathematics that can be read, or it is refused before parsing."""


class SymbolicComparer:
    """Leaves compared by algebra; implements `rsp_rl.grading.equivalence.Comparer`.

    Attributes:
        unparsable: Whether some leaf could not be read.
    """

    def __init__(self) -> None:
        self.unparsable = False

    def value(self, prediction: str, gold: str) -> bool:
        """Whether two leaves are equal as expressions or matrices."""
        decision, _ = compare_leaves(prediction, gold)
        if decision is not None:
            return decision
        try:
            return _equal_trees(_parse(prediction), _parse(gold))
        except Unreadable:
            self.unparsable = True
            return False

    def relation(self, prediction: tuple[str, str], gold: tuple[str, str], sign: int) -> bool:
        """Whether two relations agree up to a constant factor of that sign (0: any)."""
        try:
            first, second = ([_expression(_parse(side)) for side in s] for s in (prediction, gold))
        except Unreadable:
            self.unparsable = True
            return False
        return bool(proportional(tuple(first), tuple(second), PRECISION, sign=sign))


def _parse(leaf: str) -> sympy.Expr | sympy.MatrixBase:
    """Parse one leaf; raises `Unreadable`."""
    value, _ = units.split(leaf)
    if _WORD.search(value) or _MODULUS.search(value):
        raise Unreadable(leaf[:80])
    return _parse_prepared(_prepare(unwrap(value)))


def _prepare(text: str) -> str:
    """Spell out what latex2sympy reads otherwise than it is meant."""
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = _FACTOR_BEFORE_BRACKET.sub(_times, text)
    text = re.sub(r"(\d+\.?\d*|\.\d+)\s*%", r"(\1/100)", text)
    text = re.sub(r"(?<![\d])\.(?=\d)", "0.", text)
    text = _GAMMA.sub(lambda m: rf"\mathrm{{{m[1]}}}", text)
    text = _PRIMES.sub(lambda m: f"{m[1]}_{{prime{len(m[2])}}}", text)
    # The lexer keeps E for scientific notation and I for the imaginary unit.
    return re.sub(r"(\\[a-zA-Z]+)|([EI])", lambda m: m[1] or rf"\mathrm{{{m[2]}}}", text)


def _times(found: re.Match[str]) -> str:
    """A factor before a bracket, unless it is a letter that may name a function."""
    factor = found[1] or found[2]
    return rf"{factor}\cdot " if factor and factor not in FUNCTION_LETTERS else found.group()


@lru_cache(maxsize=4096)
def _parse_prepared(text: str) -> sympy.Expr | sympy.MatrixBase:
    if len(text) > _LONGEST or _depth(text) > _DEEPEST or _FORBIDDEN.search(text):
        raise Unreadable(text[:80])
    try:
        tree = latex2sympy(
            text,
            is_real=True,
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
        if isinstance(tree, sympy.MatrixExpr):
            tree = tree.doit()
    except MemoryError:
        raise
    except Exception as error:  # the parser raises bare Exception for any syntax error
        raise Unreadable(text[:80]) from error
    if isinstance(tree, sympy.MatrixBase):
        return tree
    if not isinstance(tree, sympy.Expr) or isinstance(tree, sympy.MatrixExpr):
        raise Unreadable(text[:80])
    return tree


def _depth(text: str) -> int:
    deepest = depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _equal_trees(a: Any, b: Any) -> bool:
    if isinstance(a, sympy.MatrixBase) or isinstance(b, sympy.MatrixBase):
        if not isinstance(a, sympy.MatrixBase) or getattr(b, "shape", None) != a.shape:
            return False
        return all(_equal_trees(x, y) for x, y in zip(a.flat(), b.flat(), strict=True))
    if a == b and not a.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        return True
    return bool(equal_expressions(_expression(a), _expression(b), PRECISION))


def _expression(tree: Any) -> Expression:
    if not isinstance(tree, sympy.Expr):
        raise Unreadable("a matrix where a value should be")
    return Expression(
        lambda index: _Evaluation(index)(tree),
        closed=not tree.free_symbols,
        rounded=bool(tree.atoms(sympy.Float)),
        stepped=bool(tree.atoms(sympy.floor, sympy.ceiling, sympy.Mod)),
        branched=bool(tree.atoms(sympy.Abs, sympy.Max, sympy.Min, sympy.sign))
        or any(not power.exp.is_Integer for power in tree.atoms(sympy.Pow)),
    )


class _Evaluation:
    """Evaluates a tree at one point.

    Args:
        index: Which of the points.
    """

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, tree: sympy.Basic) -> Any:
        """The value as `Fraction` or mpmath number; raises `Unknown` or `ZeroDivisionError`."""
        if isinstance(tree, sympy.Rational):
            return Fraction(int(tree.p), int(tree.q))
        if isinstance(tree, sympy.Float):
            return _decimal(tree)
        if isinstance(tree, sympy.Symbol):
            return _mp.mpc(0, 1) if tree.name == "i" else symbol_value(tree.name, self.index)
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
        name = type(tree).__name__
        if name in _FUNCTIONS:
            try:
                return _FUNCTIONS[name](*(_to_mp(self(argument)) for argument in tree.args))
            except (ValueError, TypeError, OverflowError) as error:
                raise Unknown(name) from error
        if isinstance(
            tree, AppliedUndef | sympy.Derivative | sympy.Integral | sympy.Sum | sympy.Product
        ):
            # A function nobody knows has some value, the same wherever its arguments are the same.
            return symbol_value(f"{name}({self._arguments(tree.args)})", self.index)
        raise Unknown(name)

    def _arguments(self, arguments: Any) -> str:
        parts = []
        for argument in arguments:
            if isinstance(argument, sympy.Tuple):
                parts.append(f"({self._arguments(argument)})")
            elif isinstance(argument, sympy.Expr) and argument.is_infinite is not True:
                parts.append(_mp.nstr(_to_mp(self(argument)), 20))
            else:
                parts.append(sympy.srepr(argument))
        return ",".join(parts)

    def _fold(self, arguments: Any, operation: Callable[[Any, Any], Any], value: Any) -> Any:
        for argument in arguments:
            x = self(argument)
            if not (isinstance(x, Fraction) and isinstance(value, Fraction)):
                x, value = _to_mp(x), _to_mp(value)
            value = operation(value, x)
        return value


def _decimal(number: sympy.Float) -> Fraction:
    if not number.is_finite:
        raise Unknown("infinite")
    return Fraction(str(number))


def _to_mp(value: Any) -> Any:
    if isinstance(value, Fraction):
        return _mp.mpf(value.numerator) / value.denominator
    return value


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return _whole_power(base, int(exponent))
    odd_root = isinstance(exponent, Fraction) and exponent.denominator % 2
    if odd_root and isinstance(base, Fraction) and base < 0:
        # The real root, as \sqrt[3]{-8} is meant.
        return _whole_power(-_power(-base, Fraction(1, exponent.denominator)), exponent.numerator)
    base, exponent = _to_mp(base), _to_mp(exponent)
    if base == 0:
        if _mp.re(exponent) > 0:
            return Fraction(0)
        raise ZeroDivisionError
    if abs(exponent) > _LARGEST_EXPONENT:
        raise Unknown("power")
    return _mp.power(base, exponent)


def _whole_power(base: Any, n: int) -> Any:
    if base == 0 and n < 0:
        raise ZeroDivisionError
    if isinstance(base, Fraction):
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(n) * bits > _MOST_BITS:
            raise Unknown("power")
    elif abs(n) > _LARGEST_EXPONENT:
        raise Unknown("power")
    return base**n


def _factorial(x: Any) -> Any:
    if abs(x) > 3000:
        raise Unknown("factorial")
    return _mp.factorial(x)


def _binomial(n: Any, k: Any) -> Any:
    if abs(n) > 5000 or abs(k) > 5000:
        raise Unknown("binomial")
    return _mp.binomial(n, k)


def _log(x: Any, base: Any = None) -> Any:
    if x == 0:
        raise ZeroDivisionError
    return _mp.log(x) if base is None else _mp.log(x) / _mp.log(base)


_CONSTANTS = {sympy.pi: _mp.pi + 0, sympy.E: _mp.e + 0, sympy.I: _mp.mpc(0, 1)}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": lambda x: _power(_mp.e + 0, x), "log": _log, "Abs": abs, "factorial": _factorial,
    "binomial": _binomial, "gamma": lambda x: _factorial(x - 1), "floor": _mp.floor,
    "ceiling": _mp.ceil, "sin": _mp.sin, "cos": _mp.cos, "tan": _mp.tan, "cot": _mp.cot,
    "sec": _mp.sec, "csc": _mp.csc, "asin": _mp.asin, "acos": _mp.acos, "atan": _mp.atan,
    "acot": _mp.acot, "asec": _mp.asec, "acsc": _mp.acsc, "sinh": _mp.sinh, "cosh": _mp.cosh,
    "tanh": _mp.tanh, "asinh": _mp.asinh, "acosh": _mp.acosh, "atanh": _mp.atanh,
    "Mod": _mp.fmod, "Max": max, "Min": min,
}  # fmt: skip
