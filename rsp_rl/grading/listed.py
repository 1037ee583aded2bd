r"""Answers that went through the ``repr`` of a list on their way: ``['84']``, ``array(['84'])``.

Files of training data keep the gold in a list, and whoever turns it into text leaves the marks.
Read by a pattern, never evaluated.
"""

from __future__ import annotations

import re

_LIST = re.compile(r"array\(\[(.*)\](?:, ?dtype=[^\s()]+)?\)|[\[({](.*)[\])}]", re.DOTALL)
_ITEM = re.compile(
    r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\[.*\]))\s*(?:,|(?=['"])|$)""", re.DOTALL
)
_ESCAPED = re.compile(r"\\([\\'\"])")
_TUPLE_OF_ONE = re.compile(r"\(([^()\[\]{},'\"]+),\)")
_NUMPY_TEXT = re.compile(r"""np\.str_\(('[^']*'|"[^"]*")\)""")
_DEEPEST = 3
_LONGEST = 4000  # characters; a pattern is never tried on more


def unlisted(text: str, depth: int = 0) -> str:
    """What a printed list of quoted texts holds; several are joined by commas, all are asked for.

    Args:
        text: An answer or a gold, without outer spaces.
        depth: Lists already opened.

    Returns:
        The text itself where it is no such list, as ``[1, 2]`` is none.
    """
    if text[-1:] not in ("]", ")", "}") or len(text) > _LONGEST or depth > _DEEPEST:
        return text
    lone = _TUPLE_OF_ONE.fullmatch(text)
    if lone:
        return lone[1]
    text = _NUMPY_TEXT.sub(r"\1", text)
    listed = _LIST.fullmatch(text)
    if not listed:
        return text
    items, at, inside = [], 0, (listed[1] or listed[2] or "").strip()
    while at < len(inside):
        item = _ITEM.match(inside, at)
        if not item:
            return text
        inner = unlisted(item[3], depth + 1) if item[3] else item[1] or item[2] or ""
        if inner == item[3]:
            return text
        items.append(_ESCAPED.sub(r"\1", inner) if item[3] is None else inner)
        at = item.end()
    return ", ".join(items) or text
