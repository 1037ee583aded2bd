r"""When two answers are the same answer: compare their shapes, then their leaves.

All comparisons are three-valued. ``None`` means that some leaves need algebra; the same code then
runs once more in a worker process, with leaves that SymPy compares (`rsp_rl.grading.symbolic`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol

from rsp_rl.grading import units
from rsp_rl.grading.structure import Group, Leaf, Matrix, Node, Relation, Sequence

_LABEL = re.compile(
    r"(?:\\(?:sin|cos|tan|angle|triangle|overline|vec|bar|hat|mathrm|text|mathbf|operatorname|max|min|dot)\b\s*"
    r"|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|omega|Delta|Omega)\b"
    r"|[a-zA-Z'\s{}|:])+"
    r"(?:_\s*(?:\{[^{}]*\}|\w))?'*(?:\^\s*\{\s*-1\s*\})?(?:\(\s*[\w\s,\\<>=|]*\))?\s*$"
    r"|\\frac\s*\{\s*(?:d|\\partial)[^{}]*\}\s*\{\s*(?:d|\\partial)[^{}]*\}\s*$"
    r"|\s*d[a-zA-Z]?\s*/\s*d[a-zA-Z]\s*$"
    r"|\s*\\(?:lim|sum|prod|int)(?![a-zA-Z]).*$",  # what is asked for, before its value
    re.DOTALL,
)
_SUM = re.compile(r"\s*[a-zA-Z](?:_\{?\w\}?)?(?:\s*[-+]\s*[a-zA-Z](?:_\{?\w\}?)?)+\s*$")
_FLIP = {
    "<": ">",
    ">": "<",
    "\\le": "\\ge",
    "\\ge": "\\le",
    "=": "=",
    "\\neq": "\\neq",
    "\\approx": "\\approx",
}
_EQUALITIES = {"=", "\\approx"}
_MOST_ITEMS = 100
_MOST_FORMS = 3


class Comparer(Protocol):
    """Compares leaves; see `rsp_rl.grading.grader` and `rsp_rl.grading.symbolic`."""

    def value(self, prediction: str, gold: str) -> bool | None:
        """Whether two leaves are equal."""

    def relation(
        self, prediction: tuple[str, str], gold: tuple[str, str], sign: int
    ) -> bool | None:
        """Whether ``left - right`` of both is the same up to a factor of that sign (0: any)."""


def equal(prediction: Node, gold: Node, leaves: Comparer) -> bool | None:
    """Whether two answers are the same.

    Args:
        prediction: What was answered.
        gold: The reference answer.
        leaves: Compares what stands at the leaves.

    Returns:
        The decision, or ``None`` where ``leaves`` could not make it.
    """
    prediction, gold = _single(prediction), _single(gold)
    decision = _equal_shapes(prediction, gold, leaves)
    forms, gold_forms = _forms(prediction), _forms(gold)
    if decision or len(forms) == len(gold_forms) or min(len(forms), len(gold_forms)) != 1:
        return decision
    # 3/8 or 0.375: both have to be the one value that the other answer is
    same = every(equal(a, b, leaves) for a in forms for b in gold_forms)
    return either((decision, same))


def _forms(node: Node) -> tuple[Node, ...]:
    """What may be forms of one value: the few items of a list; any other node is one by itself."""
    if not isinstance(node, Group) or node.kind != "list" or len(node.items) > _MOST_FORMS:
        return (node,)
    labels = {_label(item) for item in node.items} - {""}
    return node.items if len(labels) <= 1 else (node,)


def _equal_shapes(prediction: Node, gold: Node, leaves: Comparer) -> bool | None:
    if not (isinstance(prediction, Relation) and isinstance(gold, Relation)):
        excepted, gold_excepted = _excepted(prediction), _excepted(gold)
        if excepted and gold_excepted:
            return _equal_groups(excepted, gold_excepted, leaves)
    if isinstance(prediction, Relation) and isinstance(gold, Relation):
        return _equal_relations(prediction, gold, leaves)
    if isinstance(gold, Relation):
        return _equal_to_relation(prediction, gold, leaves, gold_is_relation=True)
    if isinstance(prediction, Relation):
        return _equal_to_relation(gold, prediction, leaves, gold_is_relation=False)
    if isinstance(prediction, Leaf) and isinstance(gold, Leaf):
        return leaves.value(prediction.text, gold.text)
    if any(isinstance(node, Leaf) and "\\begin" in node.text for node in (prediction, gold)):
        return leaves.value(_text(prediction), _text(gold))
    prediction, gold = _as_region(prediction), _as_region(gold)
    if isinstance(prediction, Matrix) and isinstance(gold, Matrix):
        if [len(row) for row in prediction.rows] != [len(row) for row in gold.rows]:
            return False
        pairs = zip(_entries(prediction), _entries(gold), strict=True)
        return every(equal(a, b, leaves) for a, b in pairs)
    if isinstance(prediction, Group) and isinstance(gold, Group):
        return _equal_groups(prediction, gold, leaves)
    ordered, other = _ordered(prediction), _ordered(gold)
    if ordered is None or other is None or len(ordered) != len(other):
        return False
    if isinstance(prediction, Sequence) and isinstance(gold, Sequence):
        if (prediction.left, prediction.right) != (gold.left, gold.right):
            return False
    elif not all(_brackets_optional(node) for node in (prediction, gold)):
        return False
    return every(equal(a, b, leaves) for a, b in zip(ordered, other, strict=True))


def every(decisions: Iterable[bool | None]) -> bool | None:
    """Three-valued "and": false if any is false, else unknown if any is unknown."""
    unknown = False
    for decision in decisions:
        if decision is False:
            return False
        unknown = unknown or decision is None
    return None if unknown else True


def either(decisions: Iterable[bool | None]) -> bool | None:
    """Three-valued "or": true if any is true, else unknown if any is unknown."""
    unknown = False
    for decision in decisions:
        if decision:
            return True
        unknown = unknown or decision is None
    return None if unknown else False


def _single(node: Node) -> Node:
    """A group or bracket around one value is that value, also if it is listed as a double root."""
    while (isinstance(node, Group) and len(set(node.items)) == 1) or (
        isinstance(node, Sequence) and len(node.items) == 1
    ):
        if isinstance(node, Group) and (
            node.kind in ("pieces", "except") or (node.kind == "set" and _is_set(node.items[0]))
        ):
            return node
        node = node.items[0]
    return node


def _is_set(node: Node) -> bool:
    return node == Leaf("\\emptyset") or (isinstance(node, Group) and node.kind == "set")


def _text(node: Node) -> str:
    """A leaf as it is, a matrix in LaTeX again: for algebra with matrices."""
    if isinstance(node, Leaf):
        return node.text
    if not isinstance(node, Matrix):
        return ""
    rows = ("&".join(_text(entry) for entry in row) for row in node.rows)
    return r"\begin{pmatrix}" + r"\\".join(rows) + r"\end{pmatrix}"


def _entries(matrix: Matrix) -> list[Node]:
    return [entry for row in matrix.rows for entry in row]


def _ordered(node: Node) -> tuple[Node, ...] | None:
    """The items of a tuple, of a list without brackets, or of a row or column vector."""
    if isinstance(node, Sequence):
        return node.items
    if isinstance(node, Group) and node.kind == "list":
        labels = [_label(item) for item in node.items]
        if all(labels):
            in_order = sorted(zip(labels, node.items, strict=True), key=lambda pair: pair[0])
            return tuple(item.sides[-1] for _, item in in_order)
        return node.items
    if isinstance(node, Matrix) and (len(node.rows) == 1 or all(len(r) == 1 for r in node.rows)):
        return tuple(_entries(node))
    return None


def _brackets_optional(node: Node) -> bool:
    """Whether a list or vector may stand for the node: not for an interval with a closed end."""
    if not isinstance(node, Sequence):
        return True
    return (node.left, node.right) == ("(", ")") or (
        (node.left, node.right) == ("[", "]") and len(node.items) != 2
    )


def _equal_groups(prediction: Group, gold: Group, leaves: Comparer) -> bool | None:
    kinds = {prediction.kind, gold.kind}
    if len(kinds) > 1 and not kinds.isdisjoint(("pieces", "except")):
        return False
    if "union" in kinds and not _are_intervals(prediction, gold):
        return False
    label, gold_label = _common_label(prediction), _common_label(gold)
    if label and gold_label and not _same_label(label, gold_label):
        return False
    items, gold_items = _without_labels(prediction), _without_labels(gold)
    if len(items) != len(gold_items):  # a double root may be listed once
        gold_items = list(dict.fromkeys(gold_items))
        if len(items) != len(gold_items):
            return False
    if len(items) > _MOST_ITEMS:
        return every(equal(a, b, leaves) for a, b in zip(items, gold_items, strict=True))
    table = [[equal(a, b, leaves) for b in gold_items] for a in items]
    things, gold_things = list(map(_thing, items)), list(map(_thing, gold_items))
    if all(things) and set(things) == set(gold_things):  # 13 hens, 17 cats is not 17 hens, 13 cats
        table = [
            [decision and thing == other for decision, other in zip(row, gold_things, strict=True)]
            for row, thing in zip(table, things, strict=True)
        ]
    if _can_pair(table, lambda decision: decision is True):
        return True
    return None if _can_pair(table, lambda decision: decision is not False) else False


def _thing(node: Node) -> str:
    """What an item counts, in letters; ``""`` if it is a bare value."""
    if not isinstance(node, Leaf):
        return ""
    unit = re.sub(r"\\[a-z]+|[^a-zA-Z]", "", units.split(node.text)[1])
    return unit.lower().removesuffix("s")


def _are_intervals(prediction: Group, gold: Group) -> bool:
    """Whether a union is answered by a union, or by its intervals one by one."""
    return gold.kind == "union" and (
        prediction.kind == "union"
        or all(isinstance(item, Sequence) and len(item.items) == 2 for item in prediction.items)
    )


def _can_pair(table: list[list[bool | None]], allowed: Callable[[bool | None], bool]) -> bool:
    """Whether rows and columns can be paired one to one along allowed entries (Kuhn)."""
    partner: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, decision in enumerate(table[row]):
            if allowed(decision) and column not in tried:
                tried.add(column)
                if column not in partner or place(partner[column], tried):
                    partner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))


def _without_labels(group: Group) -> list[Node]:
    """``x=1, x=2`` and ``x=1, 2`` as ``1, 2``; distinct labels stay."""
    if not _common_label(group):
        return list(group.items)
    return [item.sides[-1] if _label(item) else item for item in group.items]


def _common_label(group: Group) -> str:
    """The one name that the items give, the first of them too; ``""`` if there is none."""
    labels = [_label(item) for item in group.items]
    return labels[0] if len(set(filter(None, labels))) == 1 else ""


def _label(node: Node) -> str:
    """The name on the left of ``name = value``, ``""`` if the node is nothing of the kind."""
    if not isinstance(node, Relation) or not _EQUALITIES.issuperset(node.ops):
        return ""
    first = node.sides[0]
    if isinstance(first, Leaf) and _LABEL.match(first.text):
        return "".join(first.text.split())
    if isinstance(first, Sequence) and all(
        isinstance(item, Leaf) and _LABEL.match(item.text) for item in first.items
    ):
        return "(" + ",".join("".join(item.text.split()) for item in first.items) + ")"
    return ""


def _as_region(node: Node) -> Node:
    """Several inequalities in one unknown as a union of intervals."""
    if isinstance(node, Group) and node.kind == "list":
        regions = [_interval(item) if isinstance(item, Relation) else None for item in node.items]
        if len({region[0] for region in regions if region}) == 1 and all(regions):
            return Group("union", tuple(region[1] for region in regions))
    return node


def _excepted(node: Node) -> Group | None:
    r"""What all reals but a few leave out, however they are written: ``x\neq 1`` or a union."""
    if isinstance(node, Relation):
        is_one = node.ops == ("\\neq",) and _is_name(node.sides[0])
        return Group("except", node.sides[1:]) if is_one else None
    if not isinstance(node, Group) or node.kind == "set":
        return None
    if node.kind == "list" and isinstance(node.items[0], Relation):  # x \neq 1, 2
        parts = [_excepted(item) if isinstance(item, Relation) else item for item in node.items]
        names = {item.sides[0] for item in node.items if isinstance(item, Relation)}
        if None in parts or len(names) > 1:
            return None
        return Group("except", tuple(p.items[0] if isinstance(p, Group) else p for p in parts))
    if node.kind != "union" or not all(isinstance(item, Sequence) for item in node.items):
        return node if node.kind == "except" else None
    if any((item.left, item.right, len(item.items)) != ("(", ")", 2) for item in node.items):
        return None
    following = {_text(low).replace(" ", ""): high for low, high in (i.items for i in node.items)}
    gaps, end = [], "-\\infty"
    while end in following:
        gaps.append(following.pop(end))
        end = _text(gaps[-1]).replace(" ", "")
    return Group("except", tuple(gaps[:-1])) if end == "\\infty" and not following else None


def _interval(relation: Relation) -> tuple[str, Sequence] | None:
    """An inequality in one unknown as the unknown and an interval."""
    sides, ops = relation.sides, relation.ops
    if any(op not in ("<", ">", "\\le", "\\ge") for op in ops) or len(ops) > 2:
        return None
    if ops[0] in (">", "\\ge"):
        sides, ops = sides[::-1], tuple(_FLIP[op] for op in ops[::-1])
    if any(op not in ("<", "\\le") for op in ops):
        return None
    unknown = sides[1] if len(ops) == 2 or _is_name(sides[1]) else sides[0]
    if not _is_name(unknown):
        return None
    name = unknown.text.strip()
    if len(ops) == 2:
        left, right = ("(" if ops[0] == "<" else "["), (")" if ops[1] == "<" else "]")
        return name, Sequence(left, (sides[0], sides[2]), right)
    if unknown is sides[0]:
        return name, Sequence("(", (Leaf("-\\infty"), sides[1]), ")" if ops[0] == "<" else "]")
    return name, Sequence("(" if ops[0] == "<" else "[", (sides[0], Leaf("\\infty")), ")")


def _is_name(node: Node) -> bool:
    return (
        isinstance(node, Leaf)
        and re.fullmatch(r"\s*(?:[a-zA-Z]|\\[a-z]+)\s*", node.text) is not None
    )


def _equal_to_relation(
    value: Node, relation: Relation, leaves: Comparer, *, gold_is_relation: bool
) -> bool | None:
    """Compare a value with ``x = value``, a chain of equalities, or an inequality."""

    def compare(side: Node) -> bool | None:
        return equal(value, side, leaves) if gold_is_relation else equal(side, value, leaves)

    interval = _interval(relation)
    if interval is not None:
        return compare(interval[1])
    if not _EQUALITIES.issuperset(relation.ops):
        return False
    sides = relation.sides
    if _label(relation):
        return either(
            compare(side) for side in (sides[1:] if gold_is_relation else _ends(relation))
        )
    if len(sides) == 2 and _is_name(sides[1]):
        return compare(sides[0])
    if not gold_is_relation and isinstance(sides[0], Leaf) and _SUM.match(sides[0].text):
        return either(compare(side) for side in _ends(relation))  # m + n = 12, asked for m + n
    if not all(_is_closed(side) for side in sides):
        return False
    # A chain of numbers such as 3 + 4 = 7 is worth its last member, if it is true.
    exact = _ends(relation)[0]
    return every((equal(sides[0], exact, leaves), either(map(compare, _ends(relation)))))


def _ends(relation: Relation) -> tuple[Node, ...]:
    """What a chain of equalities says in the end: the last exact side, and the last of all."""
    sides, ops = relation.sides[1:], relation.ops
    if not _label(relation):  # the first side is a value as well
        sides, ops = relation.sides, ("=", *ops)
    exact = [side for side, op in zip(sides, ops, strict=True) if op == "="]
    return (exact[-1], sides[-1]) if exact else (sides[-1],)


def _is_closed(node: Node) -> bool:
    """Whether a side holds no letters beside macros, hence no unknown."""
    if not isinstance(node, Leaf):
        return False
    value, _ = units.split(node.text)
    return re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", value)) is None


def _equal_relations(prediction: Relation, gold: Relation, leaves: Comparer) -> bool | None:
    label, gold_label = _label(prediction), _label(gold)
    if label and gold_label and _same_label(label, gold_label):
        return either(
            equal(end, side, leaves) for end in _ends(prediction) for side in gold.sides[1:]
        )
    interval, gold_interval = _interval(prediction), _interval(gold)
    if gold_interval is not None and label == gold_interval[0]:
        return equal(prediction.sides[-1], gold_interval[1], leaves)
    if interval is not None and gold_label == interval[0]:
        return equal(interval[1], gold.sides[-1], leaves)
    if interval is not None and gold_interval is not None:
        if interval[0] != gold_interval[0]:
            return False
        return equal(interval[1], gold_interval[1], leaves)
    if len(prediction.sides) != len(gold.sides):
        return False
    side_by_side = either(
        (_same_sides(prediction, gold, leaves), _same_sides(_reversed(prediction), gold, leaves))
    )
    if side_by_side or len(gold.ops) > 1:
        return side_by_side
    if _FLIP[prediction.ops[0]] == gold.ops[0] != "=":
        prediction = _reversed(prediction)
    sides = [side.text for side in (*prediction.sides, *gold.sides) if isinstance(side, Leaf)]
    if prediction.ops != gold.ops or len(sides) != 4 or gold.ops[0] == "\\approx":
        return side_by_side
    sign = 0 if gold.ops[0] in ("=", "\\neq") else 1
    multiples = leaves.relation((sides[0], sides[1]), (sides[2], sides[3]), sign)
    return either((side_by_side, multiples))


def _same_label(label: str, gold_label: str) -> bool:
    """Whether two names may name the same thing: y may be called f(x)."""
    if label == gold_label:
        return True
    pair = sorted((label, gold_label), key=len)
    return pair[0] == "y" and re.fullmatch(r"[a-zA-Z]\([a-zA-Z]\)", pair[1]) is not None


def _same_sides(prediction: Relation, gold: Relation, leaves: Comparer) -> bool | None:
    if prediction.ops != gold.ops:
        return False
    pairs = zip(prediction.sides, gold.sides, strict=True)
    return every(equal(a, b, leaves) for a, b in pairs)


def _reversed(relation: Relation) -> Relation:
    return Relation(relation.sides[::-1], tuple(_FLIP[op] for op in relation.ops[::-1]))
