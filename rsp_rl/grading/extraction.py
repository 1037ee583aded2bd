r"""Find the answer in a model's output: the five-step fallback chain of the paper's appendix A.2.

Every step is one small function that returns an `Extraction` or ``None``; `extract_answer` asks
them in order. All of them are linear in the length of the text: no pattern here can backtrack.
"""

from __future__ import annotations

import re
from collections import deque

from rsp_rl.grading.verdict import Extraction

_MINERVA_START = re.compile(r"final answer is:?\s*(?=\$)", re.IGNORECASE)
_MINERVA_END = re.compile(r"\$\s?\.?\s?I hope")
_BOX_OR_BRACE = re.compile(r"\\?(?:boxed|fbox)\s*|\\.|[{}]", re.DOTALL)
_ANSWER_IS = re.compile(r"the answer is\b", re.IGNORECASE)
_FINAL_ANSWER_IS = re.compile(
    r"final answer(?: is\b|\W{0,4}:)|^[\s*#]{0,9}answer\W{0,4}:", re.IGNORECASE | re.MULTILINE
)
_STATEMENT = re.compile(r"The [^.:=]{1,120}? (?:is|are|equals) (?=\S)")
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z(])")
_DISPLAY = re.compile(r"\s*(?:\\\[|\$\$)")
_DISPLAY_END = re.compile(r"\\\]|\$\$")
_NUMBER = re.compile(
    r"(?<![\w.^])[-−+]?(?:"
    r"\\[dt]?frac\{\d{1,30}\}\{\d{1,30}\}"
    r"|(?:\d{1,3}(?:,\d{3})+(?![\d])|\d+(?=,\d\d(?![\d,])),\d\d|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,4}\b)?(?:\s?/\s?\d+)?"
    r"|\.\d+(?:[eE][-+]?\d{1,4}\b)?"
    r")(?:\s?\\?%)?"
)
_JOINS_BOXES = re.compile(r"[\s$,;.]*(?:\\?\w{0,4}\{?\s*(?:and|or)\b\s*\}?)?[^\\\n]{0,12}$")


def extract_answer(text: str) -> Extraction:
    r"""Find the answer in ``text``. Never raises.

    The chain (paper A.2): (1) ``final answer is $...$. I hope``; (2) the last non-empty
    ``\boxed{...}``; (3) the text after "the answer is"; (4) the text after "final answer is";
    (5) the last number.

    Args:
        text: A model's whole output.

    Returns:
        The answer and the step that found it; an empty text with step ``none`` if none did.
    """
    for step in (from_minerva, from_box, from_answer_is, from_final_answer_is, from_last_number):
        found = step(text)
        if found is not None:
            return found
    return Extraction("", "none")


def from_minerva(text: str) -> Extraction | None:
    """Step 1: the first ``final answer is $...$. I hope``, the form of Minerva's prompts."""
    for start in _MINERVA_START.finditer(text):
        end = _MINERVA_END.search(text, start.end() + 1)
        if end is None:
            return None
        answer = text[start.end() + 1 : end.start()].strip().strip("$").strip()
        if answer:
            return Extraction(answer, "minerva")
    return None


def from_box(text: str) -> Extraction | None:
    r"""Step 2: the last ``\boxed`` or ``\fbox`` that is not empty."""
    boxes = [box for box in _boxes(text) if box[2]]
    if not boxes:
        return None
    start, _, answer = boxes[-1]
    run = [answer]
    for earlier_start, earlier_end, earlier in reversed(boxes[:-1]):
        between = text[earlier_end:start]
        if len(between) > 40 or not _joins(between) or len(run) >= 12:
            break
        if earlier not in run:
            run.append(earlier)
        start = earlier_start
    wider = ",".join(reversed(run)) if len(run) > 1 else ""
    return Extraction(answer, "boxed", wider)


def from_answer_is(text: str) -> Extraction | None:
    """Step 3: what follows the last "the answer is"."""
    return _after_last(_ANSWER_IS, text, "answer_is")


def from_final_answer_is(text: str) -> Extraction | None:
    """Step 4: what follows the last "final answer is"."""
    return _after_last(_FINAL_ANSWER_IS, text, "final_answer_is")


def from_last_number(text: str) -> Extraction | None:
    """Step 5: the last number, with its sign, separators, exponent, denominator or percent."""
    last = _last(_NUMBER, text)
    return None if last is None else Extraction(last.group().strip(), "last_number")


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of every box, in order of their start; one pass over the text."""
    first = min((i for i in (text.find("boxed"), text.find("fbox")) if i >= 0), default=-1)
    if first < 0:
        return []
    found: list[tuple[int, int, str]] = []
    open_braces: list[tuple[int, int] | None] = []  # (start, content start) where a box opened
    pending: tuple[int, int] | None = None  # a box command whose brace should come next
    for token in _BOX_OR_BRACE.finditer(text, max(first - 1, 0)):
        mark = token.group()
        if mark == "{":
            is_box = pending is not None and pending[1] == token.start()
            open_braces.append((pending[0], token.end()) if is_box else None)
            pending = None
        elif mark == "}":
            box = open_braces.pop() if open_braces else None
            if box is not None:
                found.append((box[0], token.end(), text[box[1] : token.start()].strip()))
        elif "box" in mark:
            pending = (token.start(), token.end())
            following = text[token.end() : token.end() + 1]
            if mark.startswith("\\") and following not in ("{", ""):
                bare = re.compile(r"[^\s$]*").match(text, token.end())
                found.append((token.start(), bare.end(), bare.group().rstrip(".,;:")))
    for box in open_braces:
        if box is not None:  # never closed: the content runs to the end of its formula or line
            stop = re.compile(r"\$|\n|\\\]|\\\)").search(text, box[1])
            end = stop.start() if stop else len(text)
            found.append((box[0], end, text[box[1] : end].strip()))
    return sorted(found)


def _joins(between: str) -> bool:
    """Whether the text between two boxes only strings them together, as "and" or "," does."""
    bare = re.sub(r"\\(?:text|mathrm|quad|qquad|,|;|:|!)|[\s${}~.\\()]", "", between).lower()
    bare = re.sub(r"[a-z]\w?=", "", bare)
    return bare in ("", ",", ";", "and", "or", ",and", ",or")


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _after_last(phrase: re.Pattern[str], text: str, step: str) -> Extraction | None:
    last = _last(phrase, text)
    if last is None:
        return None
    rest = text[last.end() :].lstrip(" :*\t\n\r")
    display = _DISPLAY.match(rest)
    if display:
        end = _DISPLAY_END.search(rest, display.end())
        answer = rest[display.end() : end.start()] if end else rest[display.end() :]
    else:
        line = rest.split("\n", 1)[0]
        cut = _SENTENCE_END.search(line)
        answer = line[: cut.start()] if cut else line
    answer = " ".join(answer.split()).strip("*").rstrip(". ")
    statement = _STATEMENT.match(answer) if last.group().endswith(":") else None
    if statement:  # Final Answer: The largest n is 34.
        answer = answer[statement.end() :]
    return Extraction(answer, step, rest.strip()) if answer else None
