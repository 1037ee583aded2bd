"""What a gold answer must be so that some answer can match it.

A gold of another type, an empty one and a whole solution pass through everything and give a reward
of 0 for ever; so they are told apart before anything is graded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from numbers import Number
from typing import Any

from rsp_rl.grading.extraction import (
    from_answer_is,
    from_box,
    from_final_answer_is,
    from_minerva,
)
from rsp_rl.grading.grader import is_correct
from rsp_rl.grading.leaves import unwrap
from rsp_rl.grading.normalize import LONGEST, normalize
from rsp_rl.grading.numeric import read_numeral

#: How table programs write a value that is not there, once it has become text.
MISSING = ("nan", "<na>", "nat", "null", "n/a", "#n/a")

#: Plain words. The longest gold of MATH has three of them, the longest of OlympiadBench twelve.
MOST_WORDS = 20

#: Distinct golds that `readable` tries at most: algebra takes some thirty milliseconds each.
TRIED = 400

#: What is no answer by itself; <, > and = may be one.
_MARKS = "-+*/%()[]{}.,;:!?'\"`~_|&#@^$\\ \t\n\u200b\ufeff"

_LATEX = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}(?:\s*\{[lcr|]+\})?|\\[a-zA-Z]+")
_PLAIN_WORD = re.compile(r"(?<![\w^])[^\W\d_]{2,}(?!\w)")
_DIGIT = re.compile(r"\d")


def gold_text(value: Any) -> str:
    """The text of a gold answer, whatever a data file holds it as.

    Args:
        value: Text, a finite number, or a list or array of just one of these, which stands for it.

    Raises:
        ValueError: For what has no one text, with the cause and the mend.
    """
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, torch's tensors
        value = value.tolist()
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise ValueError(
                f"a list of {len(value)} answers, {value!r:.80}; the grader takes one text: join "
                "them with commas if all are asked for, else keep one"
            )
        return gold_text(value[0])
    if isinstance(value, str):
        return value
    if value is None:
        raise ValueError("missing; the reward needs a gold answer")
    if isinstance(value, bool):
        raise ValueError(
            f"{value!r}, a truth value; write the answer that is asked for as text (True, yes, ...)"
        )
    if isinstance(value, Number) and not isinstance(value, complex):
        if not isinstance(value, int) and not math.isfinite(value):
            raise ValueError(f"{value!r}, a missing or infinite number; drop the row or mend it")
        return str(value)
    raise ValueError(
        f"{value!r:.80}, of type {type(value).__name__}; the grader takes the answer as text"
    )


def gold_problem(gold: str) -> str | None:
    r"""Why no answer can match a gold; None if one can.

    Args:
        gold: The gold answer.
    """
    text = gold.strip()
    if not text:
        return "empty; the reward needs a gold answer"
    if text.lower() in MISSING:
        return f"{text!r}, a missing value written as text; drop the row or mend it"
    if len(text) > LONGEST:
        return f"{len(text)} characters long; {_KEEP}"
    if not text.strip(_MARKS) or not unwrap(normalize(text)).strip(_MARKS):
        return f"{text!r}, marks without an answer; drop the row or mend it"
    if written := _structure(text):
        return f"{written} written as text, {text!r:.60}; {_KEEP}"
    marked = _marked_answers(text)
    if marked and not any(is_correct(answer, gold) for answer in marked):
        return f"a whole solution, {text!r:.60}, whose answer is {marked[0]!r:.40}; {_KEEP}"
    words = len(_PLAIN_WORD.findall(_LATEX.sub(" ", text)))
    if words > MOST_WORDS:
        return f"a text of {words} words, {text!r:.60}; {_KEEP}"
    return None


_KEEP = "keep the answer alone"


def _structure(text: str) -> str | None:
    """What a list or mapping of a program is called that somebody made a text of, if it is one."""
    if text[0] not in "[{" or not ("'" in text or '"' in text):
        return None
    try:
        value = json.loads(text.replace("'", '"'))
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list) and not (
        len(value) == 1 and isinstance(value[0], str) and is_correct(value[0], text)
    ):
        return "a list"
    return None


def _marked_answers(text: str) -> list[str]:
    """The answer that a solution marks as such, if it does, in each of its readings."""
    _, hashes, after = text.rpartition("####")
    if hashes:
        return [after.strip()]
    for step in (from_minerva, from_box, from_answer_is, from_final_answer_is):
        if found := step(text):
            return [found.text, found.wider] if found.wider else [found.text]
    return []


def readable(golds: Collection[str]) -> tuple[int, int, list[str]]:
    """How many golds the grader can read as more than a string of characters.

    One that it cannot read is matched by its own wording only. Of more than `TRIED` distinct golds
    as many are tried, evenly spaced.

    Args:
        golds: Distinct golds.

    Returns:
        Readable ones, tried ones, and those of them that were not readable.
    """
    golds = list(golds)
    if len(golds) > TRIED:
        golds = [golds[number * len(golds) // TRIED] for number in range(TRIED)]
    unread = [gold for gold in golds if not _is_readable(gold)]
    return len(golds) - len(unread), len(golds), unread


def _is_readable(gold: str) -> bool:
    if read_numeral(unwrap(normalize(gold))) is not None:
        return True  # most are; no worker is started for them
    # Against itself it would be equal as a string. The same with other digits has to be read.
    other, digits = _DIGIT.subn(lambda digit: str((int(digit[0]) + 1) % 10), gold)
    verdict = is_correct(other if digits else "0", gold)
    return not (verdict.unparsable or verdict.timed_out or verdict.crashed)
