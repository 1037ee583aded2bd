r"""Read what kind of answer a normalised text is: a list, an interval, a set, an equation, a value.

Only the outer shape is read here, by counting brackets. What stands at the leaves stays text, for
the string, numeric and symbolic stages to compare.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPEN, _CLOSE = "([{", ")]}"
_DEEPEST = 60
_SEPARATOR = re.compile(
    r"[,;]|\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|\b(?:and|or)\b|\\(?:lor|land|vee|wedge)\b"
)
_RELATION = re.compile(r"\\(?:le|ge|neq|in|approx|equiv|to|implies|Rightarrow)(?![a-zA-Z])|[<>=]")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|(?<![\w])U(?![\w])")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])|\+\s*/\s*-|\+-")
_MINUS_PLUS = re.compile(r"\\mp(?![a-zA-Z])")
_MATRIX = re.compile(
    r"^[\[(|]?\s*\\begin\s*\{(pmatrix|bmatrix|Bmatrix|matrix|smallmatrix|array)\}(?:\s*\{[^{}]*\})?"
    r"(.*)\\end\s*\{\1\}\s*[\])|]?$",
    re.DOTALL,
)
_CASES = re.compile(r"^\\begin\s*\{cases\}([^&]*)\\end\s*\{cases\}$", re.DOTALL)
_PIECES = re.compile(r"^\\begin\s*\{cases\}(.*&.*)\\end\s*\{cases\}$", re.DOTALL)
_EXCEPT = re.compile(
    r"^(?:[a-zA-Z]\s*\\in(?![a-zA-Z])\s*)?\\mathbb\s*(?:\{\s*R\s*\}|R(?![a-zA-Z]))\s*"
    r"(?:\\(?:setminus|smallsetminus|backslash)(?![a-zA-Z])|-)\s*\\\{([^{}]*)\\\}$"
)
_POINT = re.compile(r"^[A-Z]'?\s*(?=\([^()]*,[^()]*\)$)")  # P(3,4)
_ALIGNED = re.compile(
    r"^\\begin\s*\{(?:aligned|align\*?|gathered|split)\}(.*)\\end\s*\{[a-z*]*\}$", re.DOTALL
)
_ENVIRONMENT = re.compile(r"\\(begin|end)(?![a-zA-Z])")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value, an expression or words: anything without an outer shape."""

    text: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """An ordered tuple, point or interval with its two brackets, such as ``[1,2)``."""

    left: str
    items: tuple[Node, ...]
    right: str


@dataclass(frozen=True, slots=True)
class Group:
    r"""Values without order.

    ``kind``: ``list`` (no brackets), ``set`` (braces), ``union``, ``pieces`` of a function, each
    with its condition, or ``except``, what is left out of the reals.
    """

    kind: str
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Relation:
    r"""A chain ``sides[0] ops[0] sides[1] ...`` of ``= < > \le \ge \neq \approx``."""

    sides: tuple[Node, ...]
    ops: tuple[str, ...]


Node = Leaf | Sequence | Group | Matrix | Relation


def read(text: str, depth: int = 0) -> Node:
    """Read the shape of a normalised answer; nesting beyond a fixed depth stays text.

    Args:
        text: An answer in the notation of `rsp_rl.grading.normalize`.
        depth: Levels already opened.

    Returns:
        The tree. A text whose brackets do not match is a single `Leaf`.
    """
    text = strip_braces(text.strip())
    if depth > _DEEPEST:
        return Leaf(text)
    matrix = _MATRIX.match(text)
    if matrix and matrix[2].count("\\begin") == 0:
        return Matrix(_rows(matrix[2], depth))
    statements = _CASES.match(text) or _ALIGNED.match(text)
    if statements and "\\begin" not in statements[1]:
        text = ",".join(re.split(r"\\\\", statements[1].replace("&", "")))
    pieces = _PIECES.match(text)
    if pieces and "\\begin" not in pieces[1]:
        rows = [row.partition("&") for row in re.split(r"\\\\", pieces[1]) if row.strip()]
        return Group("pieces", tuple(_piece(row[0], row[2], depth) for row in rows))
    excepted = _EXCEPT.match(text)
    if excepted:
        values = read(excepted[1], depth + 1)
        return Group("except", values.items if isinstance(values, Group) else (values,))
    builder = _set_builder(text)
    if builder:
        return read(builder, depth + 1)
    parts = _split(text, _SEPARATOR)
    if parts is None:
        return Leaf(text)
    parts = [part for part in parts if part.strip()]
    if len(parts) > 1:
        return Group("list", tuple(_flat(parts, depth)))
    text = parts[0].strip() if parts else text
    signs = [text] if "\\{" in text else plus_minus(text)
    if len(signs) > 1:  # x = \pm 2 is two statements, (1, \pm 2) are two points
        return Group("list", tuple(read(sign, depth + 1) for sign in signs))
    relation = _relation(text, depth)
    if relation is not None:
        return relation
    unions = _split(text, _CUP) or [text]
    if len(unions) > 1:
        return Group("union", tuple(read(part, depth + 1) for part in unions))
    bracketed = _bracketed(_POINT.sub("", text), depth)
    if bracketed is not None:
        return bracketed
    return Leaf(text)


def strip_braces(text: str) -> str:
    """Remove pairs of ``{}`` that enclose the whole text."""
    while text.startswith("{") and text.endswith("}") and _matching(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def plus_minus(text: str) -> list[str]:
    r"""``a \pm b`` as ``[a + b, a - b]``; any other text as itself."""
    if not (_PLUS_MINUS.search(text) or _MINUS_PLUS.search(text)):
        return [text]
    upper = _MINUS_PLUS.sub("-", _PLUS_MINUS.sub("+", text))
    lower = _MINUS_PLUS.sub("+", _PLUS_MINUS.sub("-", text))
    return [upper.removeprefix("+").strip(), lower.strip()]


def _flat(parts: list[str], depth: int) -> list[Node]:
    """Read list items; a plus-minus item counts as two."""
    return [read(sign, depth + 1) for part in parts for sign in plus_minus(part)]


def _rows(body: str, depth: int) -> tuple[tuple[Node, ...], ...]:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr\b", body) if row.strip()]
    return tuple(tuple(read(cell, depth + 1) for cell in row.split("&")) for row in rows)


def _piece(value: str, condition: str, depth: int) -> Sequence:
    parts = (part.strip().strip(",.;") for part in (value, condition))
    return Sequence("(", tuple(read(part, depth + 1) for part in parts), ")")


def _set_builder(text: str) -> str | None:
    r"""The condition of ``\{x | condition\}``."""
    if not (text.startswith("\\{") and text.endswith("\\}")):
        return None
    inner = text[2:-2]
    found = re.match(r"\s*[a-zA-Z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\||:)", inner)
    return inner[found.end() :] if found and "|" not in inner[found.end() :] else None


def _relation(text: str, depth: int) -> Relation | None:
    sides = _split(text, _RELATION)
    if sides is None or len(sides) < 2 or not all(side.strip() for side in sides):
        return None
    ops = _marks(text, _RELATION)
    if ops[0] == "\\in" and len(ops) == 1:
        return Relation((read(sides[0], depth + 1), read(sides[1], depth + 1)), ("=",))
    if any(op in ("\\in", "\\to", "\\implies", "\\Rightarrow") for op in ops):
        return None
    ops = ["=" if op == "\\equiv" else op for op in ops]
    return Relation(tuple(read(side, depth + 1) for side in sides), tuple(ops))


def _bracketed(text: str, depth: int) -> Node | None:
    is_set = text.startswith("\\{")
    start = 1 if is_set else 0
    if not text or text[start] not in _OPEN:
        return None
    end = _matching(text, start)
    if end != len(text) - 1:
        return None
    left = text[: start + 1]
    right = "\\}" if text[end - 1] == "\\" else text[end]
    inner = text[start + 1 : end - 1 if right == "\\}" else end]
    parts = _split(inner, re.compile("[,;]"))
    if parts is None:
        return None
    if is_set and right == "\\}":
        inner_node = read(inner, depth + 1)
        if isinstance(inner_node, Group) and inner_node.kind == "list":
            return Group("set", inner_node.items)
        return Group("set", (inner_node,) if inner.strip() else ())
    if len(parts) > 1:
        items = tuple(read(part, depth + 1) for part in parts)
        if left == "[" and all(isinstance(item, Sequence) and item.left == "[" for item in items):
            return Matrix(tuple(item.items for item in items))  # [[1,2],[3,4]]
        return Sequence(left, items, right)
    if left == "(" and right == ")":
        return read(inner, depth + 1)
    if left == "[" and right == "]":
        return Sequence(left, (read(inner, depth + 1),), right)
    return None


def _matching(text: str, start: int) -> int:
    """Index of the bracket that closes the one at ``start``, of any kind; -1 if none does."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] in _OPEN:
            depth += 1
        elif text[i] in _CLOSE:
            depth -= 1
            if depth == 0:
                return i
    return -1


def _top_level(text: str, mark: re.Pattern[str]) -> list[re.Match[str]] | None:
    """Matches of ``mark`` outside brackets and environments; ``None`` if they do not match."""
    depths, depth = [], 0
    environments = {m.start(): m[1] for m in _ENVIRONMENT.finditer(text)}
    for at, char in enumerate(text):
        if at in environments:
            depth += 1 if environments[at] == "begin" else -1
            if depth < 0:
                return None
        if char in _CLOSE:
            depth -= 1
            if depth < 0:
                return None
        depths.append(depth)
        if char in _OPEN:
            depth += 1
    if depth:
        return None
    return [found for found in mark.finditer(text) if depths[found.start()] == 0]


def _split(text: str, mark: re.Pattern[str]) -> list[str] | None:
    marks = _top_level(text, mark)
    if marks is None:
        return None
    ends = [0, *(found.end() for found in marks)]
    starts = [*(found.start() for found in marks), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


def _marks(text: str, mark: re.Pattern[str]) -> list[str]:
    return [found.group() for found in _top_level(text, mark) or ()]
