"""GSM8K's own way to mark an answer, ``#### 52``: a step of ours in the chain."""

from __future__ import annotations

import re
from itertools import islice

from rsp_rl.grading.verdict import Extraction

_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}(?!#)[ \t]*(\S[^\n]{0,200})", re.MULTILINE)
_FOUR_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]{0,200})")
_MARKED = re.compile(
    r"[$*`\s]*\$?[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?(?:\s?\\?%)?[$*`]*"
)
_TOKEN_TEXT = re.compile(r"</|<\|")  # a token such as </s> that was decoded to text
_MARKED_FORMULA = re.compile(r"[$*`\s]*(?:[-\\(\[{$]|[a-zA-Z]\s*[-+*/^=(])")
_NEXT_PROBLEM = re.compile(r"^\W{0,4}(?:question|problem|q)\b[ \d]{0,4}[:.]", re.M | re.I)
_LONG_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")
_BARE_WORD = re.compile(r"(?<![a-zA-Z])[a-zA-Z]{2,}")


def from_gsm8k(text: str) -> Extraction | None:
    """Our step after the boxes: ``#### 52``, the last before the model asks itself a new question.

    In Markdown four hashes are a heading, such as ``#### 2. Result``: a number with more behind it
    on its line counts only if the text has no second line of the kind.
    """
    if "####" not in text:
        return None
    lines = (line for line in _HEADING.finditer(text) if _marked(line[1]) != line[1].strip())
    has_headings = len(list(islice(lines, 2))) == 2
    found, asked = "", None
    for mark in _FOUR_HASHES.finditer(text):
        if asked is not None and mark.start() > asked:
            break
        answer = _marked(mark[1])
        if not answer or (answer != mark[1].strip() and has_headings):
            continue
        found = answer
        if asked is None:
            following = _NEXT_PROBLEM.search(text, mark.end())
            asked = following.start() if following else len(text)
    return Extraction(found.strip("*` "), "gsm8k") if found else None


def _marked(line: str) -> str:
    """The value that a line starts with, the whole line if it is a formula, ``""`` if neither."""
    line = _TOKEN_TEXT.split(line, maxsplit=1)[0].strip()
    number = _MARKED.match(line)
    if number and not line[number.end() : number.end() + 1].isalnum():
        rest = line[number.end() :]
        return line if not rest.strip(" .*`") or not _BARE_WORD.search(rest) else number.group()
    return line if _MARKED_FORMULA.match(line) and not _LONG_WORD.search(line) else ""
