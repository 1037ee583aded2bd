r"""Find the answer in a model's output: the fallback chain of the paper's appendix A.2.

It departs from the paper's five steps where real outputs ask for it; ``eval/README.md`` has the
table of these decisions. Every step is one small function that returns an `Extraction` or ``None``; `extract_answer` asks
them in order. All of them are linear in the length of the text: no pattern here can backtrack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rsp_rl.grading.units import is_unit
from rsp_rl.grading.verdict import Extraction

_DOLLAR = re.compile(r":?\s{0,9}\$")
_MINERVA_END = re.compile(r"\$\s?\.?\s?I hope")
_BOX_OR_BRACE = re.compile(r"\\?(?:boxed|fbox)\s*|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(  # \boxed 5, \boxed -3, \boxed (1,2), $\boxed x$; no words
    r"[-+−]?\.?\d[^\s$\\{}]{0,39}|[(\[](?=[-+−]?\d)[^\s$\\{}]{1,40}|[a-zA-Z](?=\$|\\[)\]])"
)
_FILLING = re.compile(
    r"\\phantom\s*\{[^{}]*\}|\\(?:text(?:bf|it|rm)?|mathrm|q?quad|[lc]?dots|square|Box|[,;:! _])"
    r"|[\s${}~_.…*`'\"-]|^[<(\[]|[>)\]]$"
)
_PLACEHOLDERS = frozenset(
    ["", "?", "and", "or", "ans", "result", "solution", "value", "number", "expression", "content"]
    + [who + "answer" + end for who in ("", "your", "the", "my", "final", "yourfinal", "thefinal",
       "insert", "insertyour") for end in ("", "s", "here")]
)  # fmt: skip
_LONGEST_PLACEHOLDER = 60
_PROSE = re.compile(r"[a-z]{2,}\s")
_END_OF_FORMULA = re.compile(r"\$|\n|\\\]|\\\)")
_LABEL = re.compile(r"\W{0,4}:")  # Final Answer: ..., **Answer:** ...
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z(])")
_AFTERTHOUGHT = re.compile(r",?\s+(?:which|because|since|as)\s")
_STATEMENT = re.compile(r"The [^.:=]{1,120}? (?:is|are|equals) (?=\S)")
_DISPLAY = re.compile(r"\s*(?:\\\[|\$\$)")
_DISPLAY_END = re.compile(r"\\\]|\$\$")
_NUMBER = re.compile(
    r"(?<![\w.^])[-−+]?(?:"
    r"\\[dt]?frac\{\d{1,30}\}\{\d{1,30}\}"
    r"|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+,\d\d(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,4}\b)?"
    r"(?:\s?/\s?\d+)?"
    r"|\.\d+(?:[eE][-+]?\d{1,4}\b)?"
    r")(?:\s?\\?%)?"
)
_LONGEST_NUMBER = 400
_THOUGHTS_END = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning)>|<\|(?:end_of_thought|/think)\|>|◁/think▷"
    r"|\[/THINK\]|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}(?!#)[ \t]*(\S[^\n]{0,200})", re.MULTILINE)
_FOUR_HASHES = re.compile(r"(?<!#)####(?!#)[ \t]*([^\n]{0,200})")
_MARKED = re.compile(
    r"[$*`\s]*\$?[-+−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?(?:\s?\\?%)?[$*`]*"
)
_TOKEN_TEXT = re.compile(r"</|<\|")  # a token such as </s> that was decoded to text
_MARKED_FORMULA = re.compile(r"[$*`\s]*(?:[-\\(\[{$]|[a-zA-Z]\s*[-+*/^=(])")
_NEXT_PROBLEM = re.compile(r"^\W{0,4}(?:question|problem|q)\b[ \d]{0,4}[:.]", re.M | re.I)
_LONG_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{4,}")
_FENCE = re.compile(r"```+[a-z]*[ \t]*\n?")
_LONGEST_WHOLE = 200
_AROUND = re.compile(r"^```+[a-z]*[ \t]*\n|```+$|</?answer>")
_COUNTED = re.compile(
    r"\$?\d[\d.,]*\$? [a-z]{2,20}(?: [a-z]{2,20})?(?:(?:,| and|, and) \$?\d[\d.,]*\$? [a-z]{2,20}){1,5}\.?"
)
_IN_WORDS = re.compile(r"\\[a-zA-Z]+(?:\s*\{[a-zA-Z~\s,.\-]*\})?")  # macros, with words in \text
_BARE_WORD = re.compile(r"(?<![a-zA-Z])[a-zA-Z]{2,}")
_KNOWN_WORDS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp sqrt cbrt pi inf oo "
    "infinity and or mod max min gcd lcm abs degrees degree percent million billion thousand".split()
)
_COMPUTED = re.compile(r"(?<![\w.])(?:\d+(?:\.\d+)?|\))\s*=|[.!?]\s+\S")
_PHRASE = re.compile(
    r"\W*(?:[a-zA-Z]+|no (?:real |integer |such |positive |other )?\w+(?: exists?)?|all real numbers"
    r"|all reals|does not exist|infinitely many(?: \w+)?|not \w+|none of \w+|cannot be determined"
    r"|neither|option \(?[A-K]\)?)[\s.!*]*",
    re.IGNORECASE,
)
_NOT_AN_ANSWER = ("no idea", "no clue", "no answer", "not sure")
_FARTHEST_BOX = 40  # characters between two boxes of one answer
_MOST_BOXES = 12
_JOINT = re.compile(
    r"[,;]?(?:(?:and|or)(?:else|also|possibly|maybe|perhaps|alternatively|it(?:could|may|might)be)?,?|/|\||)"
)


def extract_answer(text: str) -> Extraction:
    r"""Find the answer in ``text``. Never raises.

    The chain (paper A.2): (1) ``final answer is $...$. I hope``; (2) the last non-empty
    ``\boxed{...}``; (3) the text after "the answer is"; (4) the text after "final answer is";
    (5) the last number. Between them two steps of our own: after (2) GSM8K's ``#### ...``, before
    (5) the whole output where it is nothing but an answer. What follows the last mark that ends a
    model's thoughts (``</think>`` and its kin) is asked first, and the thoughts only if it has no
    answer.

    Args:
        text: A model's whole output.

    Returns:
        The answer and the step that found it; an empty text with step ``none`` if none did.
    """
    end = 0
    for mark in _THOUGHTS_END.finditer(text):
        end = mark.end()
    for part in (text[end:], text) if end else (text,):
        for step in CHAIN:
            found = step(part)
            if found is not None:
                return found
    return Extraction("", "none")


def from_minerva(text: str) -> Extraction | None:
    """Step 1: the first ``final answer is $...$. I hope``, the form of Minerva's prompts."""
    if "I hope" not in text:
        return None
    for start in _occurrences("final answer is", _lower(text)):
        dollar = _DOLLAR.match(text, start + len("final answer is"))
        end = _MINERVA_END.search(text, dollar.end()) if dollar else None
        if end is not None:
            answer = text[dollar.end() : end.start()].strip().strip("$").strip()
            if answer:
                return Extraction(answer, "minerva")
        elif dollar:
            return None  # no end after this one, hence after none of the later ones
    return None


def from_box(text: str) -> Extraction | None:
    r"""Step 2: the last ``\boxed`` or ``\fbox`` that is not empty."""
    boxes = _boxes(text)
    while boxes and not boxes[-1].is_made(text):
        boxes.pop()
    if not boxes:
        return None
    last = boxes.pop()
    answer = last.content(text)
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


def from_gsm8k(text: str) -> Extraction | None:
    """Our step after the boxes: ``#### 52``, the last before the model asks itself a new question.

    In Markdown four hashes are a heading, such as ``#### 2. Result``: a number with more behind it
    on its line counts only if the text has no second line of the kind.
    """
    if "####" not in text:
        return None
    headings = sum(_marked(line[1]) != line[1].strip() for line in _HEADING.finditer(text))
    found, asked = None, None
    for mark in _FOUR_HASHES.finditer(text):
        if found and asked is None:
            following = _NEXT_PROBLEM.search(text, found[1])
            asked = following.start() if following else len(text)
        if found and mark.start() > asked:
            break
        answer = _marked(mark[1])
        if answer and (answer == mark[1].strip() or headings < 2):
            found = (answer, mark.end())
            asked = None
    return Extraction(found[0].strip("*` "), "gsm8k") if found else None


def _marked(line: str) -> str:
    """The value that a line starts with, the whole line if it is a formula, ``""`` if neither."""
    line = _TOKEN_TEXT.split(line, maxsplit=1)[0].strip()
    number = _MARKED.match(line)
    if number and not line[number.end() : number.end() + 1].isalnum():
        rest = line[number.end() :]
        return line if not rest.strip(" .*`") or not _BARE_WORD.search(rest) else number.group()
    return line if _MARKED_FORMULA.match(line) and not _LONG_WORD.search(line) else ""


def from_answer_is(text: str) -> Extraction | None:
    """Step 3: what follows the last "the answer is"."""
    start = _lower(text).rfind("the answer is")
    return None if start < 0 else _what_follows(text, start + len("the answer is"), "answer_is")


def from_final_answer_is(text: str) -> Extraction | None:
    """Step 4: what follows the last "final answer is", or "Final answer:" or "Answer:"."""
    lower = _lower(text)
    at = len(text)
    while (at := lower.rfind("answer", 0, at)) >= 0:
        end = at + len("answer")
        label = _LABEL.match(text, end)
        if lower.startswith(" is", end) and lower.endswith("final ", 0, at):
            return _what_follows(text, end + len(" is"), "final_answer_is")
        if label and (lower.endswith("final ", 0, at) or _starts_line(text, at)):
            found = _what_follows(text, label.end(), "final_answer_is")
            statement = _STATEMENT.match(found.text) if found else None
            if statement:  # Final Answer: The largest n is 34.
                return Extraction(found.text[statement.end() :], found.step)
            return found
    return None


def from_whole(text: str) -> Extraction | None:
    """Our step before the last: a short output that is an answer and nothing else."""
    text = text.strip()
    if not text or len(text) > _LONGEST_WHOLE:
        return None
    text = _AROUND.sub("", text).strip()
    display = _DISPLAY.match(text) and text.endswith(("\\]", "$$"))
    if "\n" in text and not display:
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


def from_last_number(text: str) -> Extraction | None:
    """Step 5: the last number, with its sign, separators, exponent, denominator or percent."""
    last_digit = max(text.rfind(digit) for digit in "0123456789")
    if last_digit < 0:
        return None
    number = None
    for number in _NUMBER.finditer(text, max(0, last_digit - _LONGEST_NUMBER)):
        if number.end() > last_digit:
            break
    return None if number is None else Extraction(number.group().strip(), "last_number")


CHAIN = (
    from_minerva,
    from_box,
    from_gsm8k,
    from_answer_is,
    from_final_answer_is,
    from_whole,
    from_last_number,
)
"""The steps, in order; their names are `rsp_rl.grading.verdict.STEPS`."""


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
    bare = re.sub(r"\b[a-zA-Z]_?\d?\s*=", "", between)  # x = \boxed{2} or x = \boxed{3}
    bare = re.sub(r"\\(?:text|mathrm|quad|qquad|,|;|:|!)|[\s${}~.\\()\[\]]", "", bare).lower()
    return bare if _JOINT.fullmatch(bare) else None


def _what_follows(text: str, start: int, step: str) -> Extraction | None:
    """The formula, or the first sentence on the line, from ``start``; empty lines are skipped."""
    rest = text[start:].lstrip(" :*\t\n\r")
    fence = _FENCE.match(rest)
    if fence:
        rest = rest[fence.end() :].partition("```")[0]
    display = _DISPLAY.match(rest)
    if display:
        end = _DISPLAY_END.search(rest, display.end())
        answer = rest[display.end() : end.start()] if end else rest[display.end() :]
    else:
        line = rest.split("\n", 1)[0]
        cut = _SENTENCE_END.search(line)
        answer = line[: cut.start()] if cut else line
        cut = _AFTERTHOUGHT.search(answer)
        answer = answer[: cut.start()] if cut else answer
    answer = " ".join(answer.split()).rstrip("*. ")
    return Extraction(answer, step, rest.strip()) if answer else None


def _lower(text: str) -> str:
    """Lower case that keeps every index, which `str.lower` does not for some letters."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _occurrences(phrase: str, text: str) -> Iterator[int]:
    at = text.find(phrase)
    while at >= 0:
        yield at
        at = text.find(phrase, at + 1)


def _starts_line(text: str, at: int) -> bool:
    """Whether only marks such as ``**`` stand between the start of the line and ``at``."""
    before = text[max(0, at - 12) : at]
    return (len(before) < 12 or "\n" in before) and not before.rpartition("\n")[2].strip(" *#")
