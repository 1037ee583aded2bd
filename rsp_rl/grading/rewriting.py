r"""Rewritings of `rsp_rl.grading.rules` that take more than a pattern: decimals, angles, roots."""

from __future__ import annotations

import re
from fractions import Fraction

BRACKETED = r"\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)"  # brackets up to three deep
ROUND_ROOT = re.compile(r"(?:\\|(?<![\\a-zA-Z]))(sqrt|cbrt)\s*(\[[^\[\]]{0,40}\])?\s*" + BRACKETED)
_LONGEST_CYCLE = 12
_LONGEST_DENOMINATOR = 3  # digits
_ENOUGH_DIGITS = 4


def recurring(whole: str, fixed: str, cycle: str, following: str) -> str:
    """A recurring decimal as the fraction that it is, in braces if something binds to it."""
    scale = 10 ** len(fixed)
    value = Fraction(int((whole or "0") + fixed), scale)
    value += Fraction(int(cycle), scale * (10 ** len(cycle) - 1))
    if value.denominator == 1:
        return str(value)
    text = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    return "{" + text + "}" if following.startswith(("^", "!", "_")) else text


def recurring_decimal(match: re.Match[str]) -> str:
    whole, fixed, barred, letter, first, middle, last = match.groups()
    cycle = barred or letter or (first + middle + last if last else first)
    return recurring(whole, fixed, cycle, match.string[match.end() :])


def cut_decimal(match: re.Match[str]) -> str:
    """Digits before an ellipsis: the simple fraction that they must be, else as a rounded decimal.

    A cycle counts once it is there twice; few digits without one say too little.
    """
    whole, digits = match[1], match[2]
    for length in range(1, min(len(digits) // 2, _LONGEST_CYCLE) + 1):
        cycle = digits[-length:]
        if digits[-2 * length : -length] == cycle:
            text = recurring(whole, digits[:-length], cycle, "")
            if len(text.rpartition("{")[2]) <= _LONGEST_DENOMINATOR + 1:
                return text
            break
    return f"{whole}.{digits}" if len(digits) >= _ENOUGH_DIGITS else match.group()


def one_sign(text: str) -> str:
    """Two signs in a row as the one that they come to."""
    return text.replace("+-", "-").replace("-+", "-").replace("--", "+").replace("++", "+")


def degrees_and_minutes(match: re.Match[str]) -> str:
    degrees, minutes, seconds = (Fraction(part or 0) for part in match.groups())
    if minutes >= 60 or seconds >= 60:
        return match.group()
    value = degrees + minutes / 60 + seconds / 3600
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}^\circ "


def round_root(match: re.Match[str]) -> str:
    """A root in round brackets, with the roots inside of it."""
    degree = match[2] or ("[3]" if match[1] == "cbrt" else "")
    return rf"\sqrt{degree}{{" + ROUND_ROOT.sub(round_root, match[3]) + "}"


def open_brackets(match: re.Match[str]) -> str:
    """An interval whose brackets may be turned outwards, ``]1,2]``, with round ones there."""
    left, low, high, right = match.groups()
    return ("(" if left == "]" else "[") + f"{low},{high}" + (")" if right == "[" else "]")


TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}


def between(match: re.Match[str]) -> str:
    """Two bounds that hold at once as one chain; as they are where nothing is between them."""
    bounds = {}
    for name, op, limit, other_limit, turned, other_name in (
        match.groups()[:6],
        match.groups()[6:],
    ):
        relation = op or TURNED[turned]
        bounds[relation in (">", r"\ge")] = (name or other_name, relation, limit or other_limit)
    if len(bounds) < 2 or bounds[True][0] != bounds[False][0]:
        return match.group()
    (name, above, low), (_, below, high) = bounds[True], bounds[False]
    return (
        f"{low} {TURNED[above]} {name} {below} {high}"
        if (Fraction(low) <= Fraction(high))
        else match.group()
    )
