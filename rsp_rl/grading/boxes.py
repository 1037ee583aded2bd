r"""The answer in a box: step 2 of the chain, the last ``\boxed`` or ``\fbox`` that holds an answer.

A box may be merely named ("put it in ``\boxed{}``"), and several that are joined are one answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rsp_rl.grading.verdict import Extraction

_BOX_OR_BRACE = re.compile(r"\\?(?:boxed|fbox)\s*|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(  # \boxed 5, \boxed -3, \boxed (1,2), $\boxed x$; no words
    r"[-+−]?\.?\d[^\s$\\{}]{0,39}|[(\[](?=[-+−]?\d)[^\s$\\{}]{1,40}|[a-zA-Z](?=\$|\\[)\]])"
)
_FILLING = re.compile(
    r"\\phantom\s*\{[^{}]*\}|\\(?:text(?:bf|it|rm)?|mathrm|q?quad|[lc]?dots|square|Box|[,;:! _])"
    r"|[\s${}~_.…*`'\"-]|^[<(\[]|[>)\]]$"
)
_WHOSE = ("", "your", "the", "my", "final", "yourfinal", "thefinal", "insert", "insertyour")
_PLACEHOLDERS = frozenset(
    ["", "?", "and", "or", "ans", "result", "solution", "value", "number", "expression", "content"]
    + [f"{whose}answer{end}" for whose in _WHOSE for end in ("", "s", "here")]
)
_LONGEST_PLACEHOLDER = 60
_PROSE = re.compile(r"[a-z]{2,}\s")
_END_OF_FORMULA = re.compile(r"\$|\n|\\\]|\\\)")
_DENIED = re.compile(r"(?:\bnot|rather than|instead of|isn't)[\s$\\(*]{0,9}$", re.IGNORECASE)
_ROUNDED = re.compile(
    r"[\s$\\)*,]*(?:\\(?:approx|simeq)|≈|\(?(?:or )?(?:approximately|about|roughly))[\s$\\(*]*"
)
_FARTHEST_BOX = 40  # characters between two boxes of one answer
_MOST_BOXES = 12
_JOINT = re.compile(
    r"[,;]?(?:and(?:also)?,?|or(?!rather|better|more(?:precisely|exactly|accurately))[a-z,]*|/|\||)"
)


def from_box(text: str) -> Extraction | None:
    r"""Step 2: the last ``\boxed`` or ``\fbox`` that is not empty."""
    boxes = _made_boxes(text)
    if not boxes:
        return None
    while len(boxes) > 1 and _DENIED.search(text[max(0, boxes[-1].start - 30) : boxes[-1].start]):
        boxes.pop()  # \boxed{1}, not \boxed{2}
    last = boxes.pop()
    answer = last.content(text)
    if boxes and boxes[-1].end and boxes[-1].is_made(text):
        between = text[boxes[-1].end : last.start]
        if len(between) <= _FARTHEST_BOX and _ROUNDED.fullmatch(between):  # exact, then rounded
            return Extraction(boxes[-1].content(text), "boxed", answer)
    run, joined = [answer], False
    while boxes and len(run) < _MOST_BOXES:
        end = boxes[-1].end or last.start
        earlier = boxes[-1].content(text)
        if not 0 <= last.start - end <= _FARTHEST_BOX or not boxes[-1].is_made(text):
            break  # too far, or the one box is in the other
        joint = _joint(text[end : last.start])
        if joint is None:
            break
        joined = joined or bool(joint)
        if earlier not in run:
            run.append(earlier)
        last = boxes.pop()
    together = ",".join(reversed(run)) if len(run) > 1 else ""
    if together and joined:  # "2 or 3" is no answer where 3 is asked for
        return Extraction(together, "boxed")
    return Extraction(answer, "boxed", together)


def last_box(text: str) -> str:
    """The content of the last box alone; "" without one: SimpleRL-Zoo's gold of a solution."""
    boxes = _made_boxes(text)
    return boxes[-1].content(text) if boxes else ""


def _made_boxes(text: str) -> list[_Box]:
    """All boxes of a text up to the last that holds an answer."""
    boxes = _boxes(text)
    while boxes and not boxes[-1].is_made(text):
        boxes.pop()
    return boxes


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a box command starts, where its content starts and ends, where the box ends."""

    start: int
    content_start: int
    content_end: int | None
    end: int | None

    def content(self, text: str) -> str:
        if self.content_end is not None:
            return text[self.content_start : self.content_end].strip()
        # Never closed: the content runs to the end of its formula or line.
        stop = _END_OF_FORMULA.search(text, self.content_start)
        return text[self.content_start : stop.start() if stop else len(text)].strip()

    def is_made(self, text: str) -> bool:
        r"""Whether it holds an answer, and is not merely mentioned, as ``\boxed{answer}`` is."""
        content = self.content(text)
        if self.content_end is None and _PROSE.match(content):
            return False
        if len(content) > _LONGEST_PLACEHOLDER:
            return True
        return _FILLING.sub("", content).lower() not in _PLACEHOLDERS


def _boxes(text: str) -> list[_Box]:
    """Every box, in order of their start; one pass over the text."""
    first = min((i for i in (text.find("boxed"), text.find("fbox")) if i >= 0), default=-1)
    if first < 0:
        return []
    found: list[_Box] = []
    opened: list[tuple[int, int] | None] = []  # for each open brace: start and content of its box
    pending: tuple[int, int] | None = None  # a box command whose brace should come next
    for token in _BOX_OR_BRACE.finditer(text, max(first - 1, 0)):
        mark = token.group()
        if mark == "{":
            is_box = pending is not None and pending[1] == token.start()
            opened.append((pending[0], token.end()) if is_box else None)
            pending = None
        elif mark == "}":
            box = opened.pop() if opened else None
            if box is not None and box[1] != token.start():  # empty boxes do not count
                found.append(_Box(*box, token.start(), token.end()))
        elif "box" in mark:
            pending = (token.start(), token.end())
            bare = _BARE_BOX.match(text, token.end()) if mark[0] == "\\" else None
            if bare:  # \boxed 5
                end = token.end() + len(bare.group().rstrip(".,;:"))
                found.append(_Box(token.start(), token.end(), end, end))
    found.extend(_Box(*box, None, None) for box in opened if box is not None)
    return sorted(found, key=lambda box: box.start)


def _joint(between: str) -> str | None:
    """What strings two boxes together, as "and" or "," do; ``None`` if they stand apart."""
    bare = re.sub(r"\\(?:lor|vee)(?![a-zA-Z])", "or", between)
    bare = re.sub(r"\b[a-zA-Z]_?\d?\s*=", "", bare)  # x = \boxed{2} or x = \boxed{3}
    bare = re.sub(r"\\(?:text|mathrm|quad|qquad|,|;|:|!)|[\s${}~.\\()\[\]*`]", "", bare).lower()
    return bare if _JOINT.fullmatch(bare) else None
