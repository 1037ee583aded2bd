"""Multiple-choice questions, asked without showing the choices: HellaSwag, ARC, MMLU, their like.

A set is one of `CHOICE_SETS`, from the hub, or a local file with the fields of one of them; the
fields say which:

- `endings`, `label`, `ctx` (or `ctx_a`, `ctx_b`) and `activity_label`: HellaSwag;
- `question`, `choices` (a mapping of `text` and `label`) and `answerKey`: ARC;
- `question`, `choices` (a list) and `answer`, its place from 0 or its letter: MMLU.

A model reads `Question: QUESTION`, a line break and `Answer:`, and then one of the choices; of
HellaSwag `ACTIVITY: CONTEXT`, without the marks in brackets that WikiHow's texts have. So does
EleutherAI's evaluation harness where it does not ask by letters, but for capitals within a context.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.benchmarks import HubDataset, hub_rows
from rsp_rl.data.json_text import read_cell
from rsp_rl.data.lone_surrogates import lone_surrogate

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ChoiceQuestion:
    """One question.

    Attributes:
        id: Its row in the set, from 0.
        context: What stands before a choice; they are a blank apart.
        choices: What may follow, two at least.
        right: Place of the right one, from 0.
    """

    id: str
    context: str
    choices: tuple[str, ...]
    right: int


#: By name, where a set comes from and how many questions it has. Of HellaSwag the test split has no
#: labels. The numbers are those of the datasets' pages; nothing here has loaded them.
CHOICE_SETS: dict[str, tuple[HubDataset, int]] = {
    "hellaswag": (HubDataset("Rowan/hellaswag", split="validation"), 10_042),
    "arc_easy": (HubDataset("allenai/ai2_arc", config="ARC-Easy"), 2_376),
    "arc_challenge": (HubDataset("allenai/ai2_arc", config="ARC-Challenge"), 1_172),
    "mmlu": (HubDataset("cais/mmlu", config="all"), 14_042),
}

_LETTERS = "ABCDEFGHIJ"


def load_choices(text: str) -> tuple[str, list[ChoiceQuestion]]:
    """A set as a command line names it.

    Args:
        text: A key of `CHOICE_SETS`, or `NAME=FILE`.

    Returns:
        Its name and its questions, in their order.

    Raises:
        ConfigError: If there is no such set or file, or a row is none: naming set, row, cause and
            mend.
    """
    name, equals, path = text.partition("=")
    if equals:
        from rsp_rl.data.row_files import data_files, read_rows  # pyarrow

        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,49}", name):
            raise ConfigError(
                f"--questions {text}: a set's name is up to 50 letters, digits, '_', '-' and '.', "
                "as it names a file"
            )
        (file,) = data_files([path], "--questions NAME=FILE")
        return name, read_choices(read_rows(file), str(file))
    if name not in CHOICE_SETS:
        raise ConfigError(
            f"--questions {text}: unknown; use one of {', '.join(CHOICE_SETS)}, or NAME=FILE for a "
            "local file"
        )
    source, count = CHOICE_SETS[name]
    rows = hub_rows(source, f"--questions {name}=FILE")
    where = f"hub dataset {source.repository}"
    questions = read_choices(rows, where)
    if len(questions) != count:
        raise ConfigError(
            f"{where} holds {len(questions):,} questions, {name} has {count:,}: it was changed; "
            f"give the file you mean, --questions {name}=FILE"
        )
    return name, questions


def read_choices(rows: Iterable[Row], where: str) -> list[ChoiceQuestion]:
    """Questions of rows.

    Args:
        rows: All with the fields of one of the kinds.
        where: What the error calls them.

    Raises:
        ConfigError: See `load_choices`.
    """
    questions: list[ChoiceQuestion] = []
    read: Callable[[Row], tuple[str, list[str], int]] | None = None
    for number, row in enumerate(rows):
        try:
            read = read or _kind(row)
            context, choices, right = read(row)
            # After the cells of a csv file were read: JSON in them has escapes of its own.
            if problem := lone_surrogate({**row, "choices": choices}):
                raise ValueError(problem)
            questions.append(_question(str(number), context, choices, right))
        except (KeyError, ValueError) as error:
            cause = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"{where}, row {number + 1} is no multiple-choice question: {cause}; mend the row "
                "or leave it out"
            ) from error
    if not questions:
        raise ConfigError(f"{where} holds no question; is it the right file?")
    return questions


def _question(name: str, context: str, choices: list[str], right: int) -> ChoiceQuestion:
    choices = [choice.strip() for choice in choices]
    if len(choices) < 2:
        raise ValueError(f"it has {len(choices)} choices, and a choice needs two")
    if empty := [place for place, choice in enumerate(choices) if not choice]:
        raise ValueError(f"choice {empty[0] + 1} of {len(choices)} is empty")
    if not 0 <= right < len(choices):
        raise ValueError(f"the right choice is number {right} from 0, and there are {len(choices)}")
    return ChoiceQuestion(name, context, tuple(choices), right)


def _kind(row: Row) -> Callable[[Row], tuple[str, list[str], int]]:
    if "endings" in row:
        return _hellaswag
    if "choices" in row and "answerKey" in row:
        return _arc
    if "choices" in row and "answer" in row:
        return _mmlu
    raise ValueError(
        f"its fields are {', '.join(map(str, row)) or 'none'}, and they should be HellaSwag's "
        "(ctx, endings, label), ARC's (question, choices, answerKey) or MMLU's (question, choices, "
        "answer)"
    )


def _hellaswag(row: Row) -> tuple[str, list[str], int]:
    if row["label"] in ("", None):
        raise ValueError("it has no label, as the hub's test split; take the validation split")
    if row.get("ctx_a") is not None:
        second = _text(row, "ctx_b") if row.get("ctx_b") else ""
        context = f"{_text(row, 'ctx_a')} {second[:1].upper()}{second[1:]}"
    else:
        context = _text(row, "ctx")
    if row.get("activity_label"):
        context = f"{_text(row, 'activity_label')}: {context}"
    return (
        _filled("ctx", _without_marks(context)),
        [_without_marks(ending) for ending in _texts(row["endings"], "endings")],
        _place(row["label"], "label"),
    )


def _without_marks(text: str) -> str:
    """HellaSwag's texts of WikiHow have `[title]`, `[step]` and their like."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ").strip()


def _arc(row: Row) -> tuple[str, list[str], int]:
    group = read_cell(row["choices"])
    if not isinstance(group, Mapping) or not {"text", "label"} <= group.keys():
        raise ValueError(f"'choices' is {group!r:.60}, no mapping of text and label")
    choices = _texts(group["text"], "choices.text")
    labels = _texts(group["label"], "choices.label")
    if len(labels) != len(choices):
        raise ValueError(f"it has {len(choices)} choices and {len(labels)} labels")
    if labels.count(key := _text(row, "answerKey")) != 1:
        raise ValueError(f"'answerKey' is {key!r}, and the labels are {', '.join(labels)}")
    return _asked(row), choices, labels.index(key)


def _mmlu(row: Row) -> tuple[str, list[str], int]:
    choices, answer = _texts(row["choices"], "choices"), row["answer"]
    if isinstance(answer, str) and len(answer) == 1 and answer in _LETTERS:
        place = _LETTERS.index(answer)
        texts = [choice.strip() for choice in choices]
        if answer in texts and texts[place : place + 1] != [answer]:
            raise ValueError(
                f"'answer' is {answer!r}, the letter of choice {place + 1} and the text of choice "
                f"{texts.index(answer) + 1}; give its number from 0"
            )
        return _asked(row), choices, place
    return _asked(row), choices, _place(answer, "answer")


def _asked(row: Row) -> str:
    return f"Question: {_filled('question', _text(row, 'question').strip())}\nAnswer:"


def _filled(field: str, text: str) -> str:
    if not text:
        raise ValueError(f"{field!r} is empty")
    return text


def _text(row: Row, field: str) -> str:
    if not isinstance(row[field], str):
        raise ValueError(f"{field!r} is {row[field]!r:.40}, not text")
    return row[field]


def _texts(value: Any, field: str) -> list[str]:
    value = read_cell(value)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{field!r} is {value!r:.60}, no list of texts")
    return value


def _place(value: Any, field: str) -> int:
    """Of a number from 0, which HellaSwag has as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{field!r} is {value!r:.40}, no choice's number from 0")
    return value
