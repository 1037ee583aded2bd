r"""Find the answer in a model's output: the fallback chain of the paper's appendix A.2.

It departs from the paper's five steps where real outputs ask for it; ``docs/grading.md`` has the
table of these decisions. Every step is one small function that returns an `Extraction` or ``None``;
`extract_answer` asks them in order. All of them are linear in the length of the text: no pattern
here can backtrack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rsp_rl.grading.boxes import from_box
from rsp_rl.grading.characters import plain_characters
from rsp_rl.grading.hashes import from_gsm8k
from rsp_rl.grading.verdict import Extraction
from rsp_rl.grading.whole import from_whole

_DOLLAR = re.compile(r":?\s{0,9}\$")
_MINERVA_BARE = re.compile(r":?\s{1,9}([^\n$]{1,300}?)\s?\.?\s?I hope")
_MINERVA_END = re.compile(r"\$\s?\.?\s?I hope")
_LABEL = re.compile(r"\W{0,4}:")  # Final Answer: ..., **Answer:** ...
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z(])")
_AFTERTHOUGHT = re.compile(
    r",?\s+(?:which|because|since|as)\s|\s+—\s|;\s+(?!and\b|or\b)[a-z]{3,}\s"
    r"|\*{0,2}\s+\((?:see|as|from|by|because|since|using)\s"
    r"|(?<=[\d$)}*]),?\s+(?:not|rather than|instead of)\s"
)
_FILLER = re.compile(
    r"(?:(?:exactly|simply|just|therefore|thus|then|hence|indeed|precisely|clearly|actually|now"
    r"|around|equal to|given by|(?:found |going )?to be)[\s:,]+){1,3}"
)
_STATEMENT = re.compile(r"The [^.:=]{1,120}? (?:is|are|equals) (?=\S)")
_DISPLAY = re.compile(r"\s*(?:\\\[|\$\$)")
_DISPLAY_END = re.compile(r"\\\]|\$\$")
_FENCE = re.compile(r"```+[a-z]*[ \t]*\n?")
_NUMBER = re.compile(
    r"(?<![\w.^])[-−+]?(?:"
    r"\\[dt]?frac\{\d{1,30}\}\{\d{1,30}\}"
    r"|(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+,\d\d(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,4}\b)?"
    r"(?:\s?/\s?\d+)?"
    r"|\.\d+(?:[eE][-+]?\d{1,4}\b)?"
    r")(?:\s?\\?%)?"
)
_LONGEST_NUMBER = 400
_TOKEN_TEXT = re.compile(  # a token that ends a turn, decoded to text
    r"<\|(?!think|/think|begin_of_thought|end_of_thought)[^<>|\s]{1,40}\|>"
    r"|</s>|<eos>|<end_of_turn>|\[/INST\]"
)
_TAG = re.compile(r"<(?:final_?)?answer>", re.IGNORECASE)
_END_TAG = re.compile(r"</(?:final_?)?answer>", re.IGNORECASE)
_THOUGHTS_END = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning)>|<\|(?:end_of_thought|/think)\|>|◁/think▷"
    r"|\[/THINK\]|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)


def extract_answer(text: str) -> Extraction:
    r"""Find the answer in ``text``. Never raises.

    The chain (paper A.2): (1) ``final answer is $...$. I hope``; (2) the last non-empty
    ``\boxed{...}``; (3) the text after "the answer is"; (4) the text after "final answer is";
    (5) the last number. Between them two steps of our own: after (2) GSM8K's ``#### ...``, before
    (5) the whole output where it is nothing but an answer. What follows the last mark that ends a
    model's thoughts (``</think>`` and its kin) is asked first, and the thoughts only if it has no
    answer; within either, what the last ``<answer>`` holds. Tokens that end a turn, decoded to
    text, end a line.

    Args:
        text: A model's whole output.

    Returns:
        The answer and the step that found it; an empty text with step ``none`` if none did.
    """
    text = plain_characters(text)
    end = 0
    for mark in _THOUGHTS_END.finditer(text):
        end = mark.end()
    for part in (text[end:], text) if end else (text,):
        part = _TOKEN_TEXT.sub("\n", part)
        tagged = _last_tagged(part)
        for place in (tagged, part) if tagged else (part,):
            for step in CHAIN:
                found = step(place)
                if found is not None:
                    return found
    return Extraction("", "none")


def _last_tagged(text: str) -> str:
    """What the last ``<answer>`` holds, ``""`` without one."""
    start = 0
    for tag in _TAG.finditer(text):
        start = tag.end()
    return _END_TAG.split(text[start:], maxsplit=1)[0].strip() if start else ""


def from_minerva(text: str) -> Extraction | None:
    """Step 1: the first ``final answer is $...$. I hope``, the form of Minerva's prompts.

    The dollars may be missing; what follows is often a problem that the model gives itself.
    """
    if "I hope" not in text:
        return None
    for start in _occurrences("final answer is", _lower(text)):
        after = start + len("final answer is")
        dollar = _DOLLAR.match(text, after)
        end = _MINERVA_END.search(text, dollar.end()) if dollar else None
        if end is not None:
            answer = text[dollar.end() : end.start()].strip().strip("$").strip()
            if answer:
                return Extraction(answer, "minerva")
        elif dollar:
            return None  # no end after this one, hence after none of the later ones
        elif text.find("I hope", after, after + 320) >= 0:
            bare = _MINERVA_BARE.match(text, after)
            if bare and bare[1].strip():
                return Extraction(bare[1].strip(), "minerva")
    return None


def from_answer_is(text: str) -> Extraction | None:
    """Step 3: what follows the last "the answer is"."""
    start = _lower(text).rfind("the answer is")
    return None if start < 0 else _what_follows(text, start + len("the answer is"), "answer_is")


def from_final_answer_is(text: str) -> Extraction | None:
    """Step 4: what follows the last "final answer is", or "Final answer:" or "Answer:".

    The answer may be the "correct" one too, and the correct "option" where no answer is named.
    """
    lower = _lower(text)
    at = len(text)
    while (at := lower.rfind("answer", 0, at)) >= 0:
        end = at + len("answer")
        label = _LABEL.match(text, end)
        if lower.startswith(" is", end) and lower.endswith(_WHICH_ANSWER, 0, at):
            return _what_follows(text, end + len(" is"), "final_answer_is")
        if label and (lower.endswith("final ", 0, at) or _starts_line(text, at)):
            found = _what_follows(text, label.end(), "final_answer_is")
            statement = _STATEMENT.match(found.text) if found else None
            if statement:  # Final Answer: The largest n is 34.
                return Extraction(found.text[statement.end() :], found.step)
            return found
    for choice in _CHOICE_IS.finditer(lower):
        at = choice.end()
    return _what_follows(text, at, "final_answer_is") if at > 0 else None


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


def _what_follows(text: str, start: int, step: str) -> Extraction | None:
    """The formula, or the first sentence on the line, from ``start``; empty lines are skipped."""
    rest = text[start:].lstrip(" :*\t\n\r")
    filler = _FILLER.match(rest)
    rest = rest[filler.end() :] if filler else rest
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


_CHOICE_IS = re.compile(r"\b(?:correct|right) (?:option|choice) is\b")
_WHICH_ANSWER = ("final ", "correct ", "right ")
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
