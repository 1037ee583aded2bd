r"""What the way through editors, keyboards and files makes of characters, undone.

Marks that nobody sees, digits and letters of other blocks (full width, mathematical bold, Arabic),
``\f`` of ``\frac`` read as a form feed. What a character *means* is in `rsp_rl.grading.rules`.
"""

from __future__ import annotations

import re
import unicodedata

_KEPT = frozenset("ℝℤℕℚℂ")  # a rule knows them
_SAME_IN_PLAIN = ("<wide>", "<narrow>", "<font>", "<circle>")
_CONTROLS = {"\f": r"\f", "\b": r"\b", "\v": r"\v", "\a": r"\a"}
_EATEN_BACKSLASH = re.compile(
    r"[\f\x08\v\a](?=[a-zA-Z])"
    r"|\t(?=(?:ext|extbf|imes|frac|heta|binom|riangle)(?![a-zA-Z]))"
    r"|\r(?=(?:ight|angle|floor|ceil|brace|vert|ho)(?![a-zA-Z]))"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _Plain(dict[int, str]):
    """What stands for a character, found when it is first met."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _plain(chr(code))
        return plain


def _plain(char: str) -> str:
    if char.isascii() or char in _KEPT:
        return char
    category = unicodedata.category(char)
    if category == "Cf" or "VARIATION SELECTOR" in unicodedata.name(char, ""):
        return ""
    if category == "Zs":
        return " "
    if category == "Nd":
        return str(unicodedata.decimal(char))
    kind = unicodedata.decomposition(char).partition(" ")[0]
    return unicodedata.normalize("NFKC", char) if kind in _SAME_IN_PLAIN else char


_PLAIN = _Plain()


def plain_characters(text: str) -> str:
    """A text with plain digits and letters, without marks that nobody sees; linear in its length.

    Args:
        text: A model's output, an answer or a gold.
    """
    if not text.isascii():
        text = text.translate(_PLAIN)
    if not text.isprintable():
        text = _EATEN_BACKSLASH.sub(
            lambda mark: _CONTROLS.get(mark.group(), "\\t" if mark.group() == "\t" else r"\r"), text
        )
        text = _CONTROL.sub("", text)
    return text
