r"""Notation with a second reading: ``C(5,2)``, a point or a number; ``3/8 (0.375)``, a product.

Where the one that `rsp_rl.grading.normalize` makes is not the gold, the other is tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_NUMBER = r"\d{1,4}"
_INDEX = rf"(?:\{{\s*({_NUMBER})\s*\}}|({_NUMBER}))"
_LETTER = r"(?:\\(?:mathrm|text|rm)\s*\{?\s*)?([CPA])\s*\}?"
_CHOSEN = re.compile(
    rf"(?<![\w\\])([CP])\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)"  # C(5,2)
    rf"|(?:(?<![\w}}^_])|\{{\}})[\^_]{_INDEX}\s*{_LETTER}\s*_{_INDEX}"  # {}^5C_2, _5C_2
    rf"|(?<![\w.}}])({_NUMBER})\s?([CP])\s?_?({_NUMBER})(?![\w.])"  # 5C2
    rf"|(?<![\w\\]){_LETTER}\s*_{_INDEX}\s*\^{_INDEX}"  # C_5^2, as in China
)
_DOZENS = re.compile(r"^(\d{1,6}) ?(?:\\text\{ ?dozens?([^{}]*)\}|dozens?(?![a-zA-Z])(.*))$")
_IN_BRACKETS = re.compile(
    r"(.*\S)(?:\s+\(([^()]{1,80})\)|\s*\\text\s*\{\s*\(([^(){}]{1,80})\)\s*\})$"
)
_SEVERAL = re.compile(r"[,;]|\bor\b|\band\b|\\pm|\\mp")
_DEGREES = re.compile(r"\\circ(?![a-zA-Z])|\\degree|\bdegrees?\b|°")
_ANGLE = re.compile(r"-?\d+(?:\.\d+)?")
_RADIANS = re.compile(r"\\pi(?![a-zA-Z])")


def other_readings(prediction: str, gold: str, raw: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Further pairs of a prediction and a gold to compare.

    Args:
        prediction: A normalised answer.
        gold: The gold, normalised.
        raw: Both as they were written, with their degree signs.
    """
    if "," not in gold:
        chosen = _CHOSEN.sub(_as_factorials, prediction), _CHOSEN.sub(_as_factorials, gold)
        if chosen != (prediction, gold):
            yield chosen
    dozens = _DOZENS.match(prediction)
    if dozens:
        yield f"{12 * int(dozens[1])} {dozens[2] or dozens[3] or ''}".strip(), gold
    restated = _IN_BRACKETS.fullmatch(prediction)
    if restated and not _SEVERAL.search(gold):  # both forms have to be right
        yield rf"{restated[1]} \text{{ or }} {restated[2] or restated[3]}", gold
    in_degrees = [_DEGREES.search(text) is not None for text in raw]
    if in_degrees == [True, False] and _RADIANS.search(gold) and _ANGLE.fullmatch(prediction):
        yield _in_radians(prediction), gold
    if in_degrees == [False, True] and _RADIANS.search(prediction) and _ANGLE.fullmatch(gold):
        yield prediction, _in_radians(gold)


def _as_factorials(match: re.Match[str]) -> str:
    kinds, numbers = [], []
    for group in filter(None, match.groups()):
        (numbers if group.isdigit() else kinds).append(group)
    n, k = map(int, numbers)
    if k > n:
        return match.group()
    return rf"\binom{{{n}}}{{{k}}}" if kinds == ["C"] else rf"\frac{{{n}!}}{{{n - k}!}}"


def _in_radians(angle: str) -> str:
    return rf"\frac{{{angle}\pi}}{{180}}"
