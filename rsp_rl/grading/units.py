r"""Units and counted things behind a value: ``5\text{ cm}^2``, ``45 mph``, ``12 apples``."""

from __future__ import annotations

import re
from fractions import Fraction

_ALIASES = {
    "m": "meter metre meters metres", "cm": "centimeter centimetre centimeters centimetres",
    "mm": "millimeter millimetre millimeters millimetres", "dm": "decimeter decimeters",
    "km": "kilometer kilometre kilometers kilometres kms", "in": "inch inches",
    "ft": "foot feet", "yd": "yard yards yds", "mi": "mile miles", "g": "gram grams gm",
    "kg": "kilogram kilograms kgs", "mg": "milligram milligrams", "lb": "pound pounds lbs",
    "oz": "ounce ounces", "s": "second seconds sec secs", "min": "minute minutes mins",
    "h": "hour hours hr hrs", "d": "day days", "wk": "week weeks", "mo": "month months",
    "yr": "year years yrs", "L": "liter litre liters litres l", "ml": "milliliter milliliters mL",
    "gal": "gallon gallons", "N": "newton newtons", "J": "joule joules", "W": "watt watts",
    "Hz": "hertz", "V": "volt volts", "A": "amp amps ampere amperes", "T": "tesla",
    "K": "kelvin", "mph": "", "kmh": "kph kmph", "rad": "radian radians", "cent": "cents",
    "dollar": "dollars USD bucks", "unit": "units", "point": "points",
}  # fmt: skip
_UNIT = {alias: unit for unit, names in _ALIASES.items() for alias in (unit, *names.split())}
_SIZES = tuple(  # of the units of one kind, in one of them
    {unit: Fraction(size) for unit, size in kind.items()}
    for kind in (
        {"mm": "1/1000", "cm": "1/100", "dm": "1/10", "m": "1", "km": "1000"},
        {"in": "1", "ft": "12", "yd": "36", "mi": "63360"},
        {"mg": "1/1000", "g": "1", "kg": "1000"},
        {"s": "1", "min": "60", "h": "3600", "d": "86400", "wk": "604800"},
        {"ml": "1", "L": "1000"},
        {"cent": "1", "dollar": "100"},
    )
)
_POWERS = {"square": "^2", "squared": "^2", "sq": "^2", "cubic": "^3", "cubed": "^3", "cu": "^3"}
_MODIFIERS = (*_POWERS, "per")

# A variable may be a bare letter, a unit in roman type may not: bare units have two letters.
_IN_BRACES = r"\s*\{(?:[^{}]|\{[^{}]*\})*\}"
_WRAPPED = r"\\(?:text(?:bf|it|rm|sf)?|math(?:rm|bf|it|sf)|mbox|hbox|operatorname)" + _IN_BRACES
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?"
_BARE = (
    "(?:"
    + "|".join(sorted((n for n in {*_UNIT, *_MODIFIERS} if len(n) > 1), key=len, reverse=True))
    + r")(?![a-zA-Z])"
)
_BEHIND = re.compile(
    rf"(?P<value>.*?(?:[\d.}})%\]!]|\\pi))(?P<unit>(?:\s*(?:/|\\cdot|-)?\s*(?:{_WRAPPED}|{_BARE}){_POWER})+)$",
    re.DOTALL,
)
_COUNTED = re.compile(
    r"(?P<value>[-+]?[\d.,]*\d(?:/\d+|!)?)\s+(?P<unit>[a-zA-Z]{3,}(?:[\s-][a-zA-Z]+){0,5})$"
)
_KNOWN = "|".join(sorted(_UNIT, key=len, reverse=True))
_MEASURED = re.compile(  # 9.8 m/s^2, 10 m^2, 10 (cm)
    r"(?P<value>[-+]?(?:\d[\d.,/]*|\\frac\{\d+\}\{\d+\}))"
    rf"(?P<unit>\s*(?:{_KNOWN}){_POWER}\s*(?:/|\bper\b)\s*\(?(?:{_KNOWN}){_POWER}\)?"
    r"|\s(?:sq|cu)\.?\s?(?:[kcdm]?m|ft|in|yd|mi)"
    r"|\s(?:[kcdm]?m|ft|in|yd|mi)\s*\^\s*(?:\{\s*[23]\s*\}|[23])"
    r"|\s?(?:\\mu\s?[msgLA]|[kM]?\\Omega|\\AA|Å)"
    rf"|\s\((?:{_KNOWN}){_POWER}\))$"
)
_NOT_UNITS = re.compile(r"\b(?:not|if|for|when|where|and|or|i|e|am|pm|AM|PM|times|mod)\b|\\pi|\d")
_WRAPPED_TEXT = re.compile(r"\\[a-z]+\s*\{((?:[^{}]|\{[^{}]*\})*)\}")


def split(text: str) -> tuple[str, str]:
    """Split a leaf into its value and its unit, ``""`` if it has none.

    Args:
        text: A normalised leaf, with its wrappers such as ``\\text`` still in place.
    """
    found = _MEASURED.match(text) or _BEHIND.match(text) or _COUNTED.match(text)
    if not found:
        return text, ""
    unit = _WRAPPED_TEXT.sub(r" \1 ", found["unit"])
    if _NOT_UNITS.search(re.sub(_POWER + "$|" + _POWER + r"(?=\s)", "", unit)):
        return text, ""
    return found["value"].strip(), " ".join(unit.split())


def is_unit(word: str) -> bool:
    """Whether a bare word is a unit that is known, such as ``cm`` or ``minutes``."""
    return word in _UNIT or word in _MODIFIERS


def compatible(unit: str, other: str) -> bool:
    """Whether two units may stand for each other: false only if both are known and differ."""
    a, b = _known(unit), _known(other)
    return a is None or b is None or a == b


def ratio(unit: str, other: str) -> Fraction | None:
    """How many of another unit a unit is; ``None`` if they are not of one kind."""
    a, b = _known(unit), _known(other)
    for sizes in _SIZES:
        if a in sizes and b in sizes:
            return sizes[a] / sizes[b]
    return None


def _known(unit: str) -> str | None:
    """A unit in symbols, such as ``cm^2`` or ``km/h``; ``None`` if some part of it is not known."""
    text = re.sub(r"\bper\b", "/", re.sub(r"[\s{}().\\]+", " ", unit))
    power = ""
    parts = []
    for word in re.findall(r"[a-zA-Z]+|\^ ?-?\d|/", text):
        if word in _POWERS:
            power = _POWERS[word]
        elif word == "/":
            parts.append("/")
        elif word[0] == "^":
            power = word.replace(" ", "")
        elif word in _UNIT:
            parts.append(_UNIT[word])
        else:
            return None
    return "".join(parts) + power
