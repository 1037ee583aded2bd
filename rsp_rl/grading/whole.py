r"""An output that is nothing but its answer, ``$\{4,7,9\}$`` or ``East``: a step of our own.

Of such an output the last number would be a part: 9, or none.
"""

from __future__ import annotations

import re

from rsp_rl.grading.units import is_unit
from rsp_rl.grading.verdict import Extraction

_LONGEST = 200
_AROUND = re.compile(r"^```+[a-z]*[ \t]*\n|```+$|^#{1,6}\s+(?=[^\n]*$)")
_DISPLAY = re.compile(r"\\\[.*\\\]|\$\$.*\$\$", re.DOTALL)
_COUNT = r"\$?\d[\d.,]*\$? [a-z]{2,20}"
_COUNTED = re.compile(rf"{_COUNT}(?: [a-z]{{2,20}})?(?:(?:,| and|, and) {_COUNT}){{1,5}}\.?")
_IN_WORDS = re.compile(r"\\[a-zA-Z]+(?:\s*\{[a-zA-Z~\s,.\-]*\})?")  # macros, with words in \text
_BARE_WORD = re.compile(r"(?<![^\W\d_])[^\W\d_]{2,}")
_KNOWN_WORDS = frozenset(
    [
        *("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh"),
        *("tanh", "ln", "log", "exp", "sqrt", "cbrt", "pi", "inf", "oo", "infinity", "and", "or"),
        *("mod", "max", "min", "gcd", "lcm", "abs", "degree", "degrees", "percent", "thousand"),
        *("million", "billion", "am", "pm"),
    ]
)
_COMPUTED = re.compile(r"(?<![\w.])(?:\d+(?:\.\d+)?|\))\s*=|[.!?]\s+\S")
_PHRASE = re.compile(
    r"\W*(?:[a-zA-Z]+|no (?:real |integer |such |positive |other )?\w+(?: exists?)?"
    r"|all reals?(?: numbers)?|does not exist|infinitely many(?: \w+)?|not \w+|none of \w+"
    r"|cannot be determined|option \(?[A-K]\)?)[\s.!*]*",
    re.IGNORECASE,
)
_NOT_AN_ANSWER = ("no idea", "no clue", "no answer", "not sure")


def from_whole(text: str) -> Extraction | None:
    """Our step before the last: a short output that is an answer and nothing else."""
    text = text.strip()
    if not text or len(text) > _LONGEST:
        return None
    text = _AROUND.sub("", text).strip()
    if "\n" in text and not _DISPLAY.fullmatch(text):
        return None
    if not any(char.isdigit() for char in text) and _PHRASE.fullmatch(text):
        is_one = not text.lower().startswith(_NOT_AN_ANSWER)
        return Extraction(text, "whole") if is_one else None
    words = [] if _COUNTED.fullmatch(text) else _BARE_WORD.findall(_IN_WORDS.sub(" ", text))
    if any(word.lower() not in _KNOWN_WORDS and not is_unit(word) for word in words):
        return None
    if _COMPUTED.search(text) or "boxed" in text or not any(char.isalnum() for char in text):
        return None  # 2 + 2 = 4, 4 + 1 = 5: a reckoning, whose last number counts
    return Extraction(" ".join(text.split()), "whole")
