"""Multiple-choice sets: fields of the three kinds in every format, and what is refused, by row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data import choices
from rsp_rl.data.benchmarks import HubDataset
from rsp_rl.data.choices import CHOICE_SETS, ChoiceQuestion, load_choices, read_choices

HELLASWAG = {
    "ind": 4,
    "activity_label": "Sharpening pencils",
    "ctx_a": "[header] How to sharpen [title] Take a pencil.  Hold it",
    "ctx_b": "the point",
    "ctx": "unused where its two halves are there",
    "endings": ["goes in. [substeps] Turn it.", "sings aloud.", "is eaten.", "flies off."],
    "label": "0",
}
ARC = {
    "id": "Q_1",
    "question": "Which of these is a solid?",
    "choices": {"text": ["steam", "ice", "water"], "label": ["A", "B", "C"]},
    "answerKey": "B",
}
MMLU = {
    "question": " What is two squared? ",
    "subject": "arithmetic",
    "choices": ["3", "4", "5", "6"],
    "answer": 1,
}


def write(file: Path, rows: list[dict]) -> Path:
    if file.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".csv":
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            for row in rows:
                is_text = {key: isinstance(value, str) for key, value in row.items()}
                writer.writerow({k: v if is_text[k] else json.dumps(v) for k, v in row.items()})
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "csv"])
def test_the_three_kinds_in_every_format(ending: str, tmp_path: Path) -> None:
    read = {}
    for name, row in (("hella", HELLASWAG), ("arc", ARC), ("mmlu", MMLU)):
        file = write(tmp_path / f"{name}.{ending}", [row])
        read[name] = load_choices(f"{name}={file}")
    assert read == {
        "hella": (
            "hella",
            [
                ChoiceQuestion(
                    "0",
                    "Sharpening pencils: How to sharpen. Take a pencil. Hold it The point",
                    ("goes in. Turn it.", "sings aloud.", "is eaten.", "flies off."),
                    0,
                )
            ],
        ),
        "arc": (
            "arc",
            [
                ChoiceQuestion(
                    "0",
                    "Question: Which of these is a solid?\nAnswer:",
                    ("steam", "ice", "water"),
                    1,
                )
            ],
        ),
        "mmlu": (
            "mmlu",
            [
                ChoiceQuestion(
                    "0", "Question: What is two squared?\nAnswer:", ("3", "4", "5", "6"), 1
                )
            ],
        ),
    }


def test_other_spellings_of_the_right_one() -> None:
    def right(row: dict) -> int:
        return read_choices([row], "here")[0].right

    numbered = {"text": ["a", "b"], "label": ["1", "2"]}
    assert right(ARC | {"choices": numbered, "answerKey": "2"}) == 1
    assert right(MMLU | {"answer": "C"}) == 2
    assert right(MMLU | {"answer": "3"}) == 3
    assert right(HELLASWAG | {"label": 3}) == 3
    short = {"ctx": "A man sits", "endings": ["down.", "up."], "label": "1"}
    assert read_choices([short], "here") == [ChoiceQuestion("0", "A man sits", ("down.", "up."), 1)]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"text": "x"}, "its fields are text, and they should be HellaSwag's"),
        (HELLASWAG | {"label": ""}, "no label, as the hub's test split; take the validation"),
        (HELLASWAG | {"label": None}, "no label"),
        (HELLASWAG | {"label": "4"}, "the right choice is number 4 from 0, and there are 4"),
        (HELLASWAG | {"label": -1}, "number -1 from 0"),
        (HELLASWAG | {"label": True}, "'label' is True, no choice's number"),
        (HELLASWAG | {"label": "A"}, "'label' is 'A', no choice's number"),
        (HELLASWAG | {"endings": "none"}, "'endings' is 'none', no list of texts"),
        (HELLASWAG | {"endings": ["a", None]}, "no list of texts"),
        (HELLASWAG | {"endings": ["a", " [title] "]}, "choice 2 of 2 is empty"),
        ({"endings": ["a", "b"], "label": 0}, "no field 'ctx'"),
        (HELLASWAG | {"ctx_a": "[header]", "ctx_b": "", "activity_label": ""}, "'ctx' is empty"),
        (ARC | {"answerKey": "D"}, "'answerKey' is 'D', and the labels are A, B, C"),
        (ARC | {"answerKey": None}, "'answerKey' is None, not text"),
        (ARC | {"choices": {"text": ["a", "b"], "label": ["A", "A"]}, "answerKey": "A"}, "A, A"),
        (ARC | {"choices": {"text": ["a", "b"], "label": ["A"]}}, "2 choices and 1 labels"),
        (ARC | {"choices": ["a", "b"]}, "no mapping of text and label"),
        (ARC | {"question": "  "}, "'question' is empty"),
        (MMLU | {"choices": ["a"], "answer": 0}, "it has 1 choices"),
        (MMLU | {"answer": 1.0}, "'answer' is 1.0, no choice's number"),
        (MMLU | {"answer": "J"}, "number 9 from 0, and there are 4"),
        (MMLU | {"question": None}, "'question' is None, not text"),
        (MMLU | {"question": "half \ud800"}, "half a character"),
    ],
)
def test_a_bad_row_is_named_with_its_mend(row: dict, cause: str) -> None:
    good = next(
        one for one in (HELLASWAG, ARC, MMLU) if {"endings", "answerKey"} & one.keys() <= row.keys()
    )
    with pytest.raises(ConfigError) as raised:
        read_choices([good, row], "a/file.jsonl")
    said = str(raised.value)
    # A row without any of the fields is known by its first row alone.
    if "text" not in row or "question" in row:
        assert said.startswith("a/file.jsonl, row 2 is no multiple-choice question: ")
        assert said.endswith("; mend the row or leave it out")
        assert cause in said
    with pytest.raises(ConfigError, match="row 1 is no multiple"):
        read_choices([row], "a/file.jsonl")


def test_sets_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, said in (
        ("hella", "--questions hella: unknown; use one of hellaswag, arc_easy"),
        ("a/b=x.jsonl", "a set's name is up to 50 letters"),
        (f"{'a' * 51}=x.jsonl", "a set's name is up to 50 letters"),
        ("a=none.jsonl", "none.jsonl does not exist; check --questions NAME=FILE"),
        (f"a={write(tmp_path / 'empty.jsonl', [])}", "holds no question"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_choices(text)
    asked = []

    def hub_rows(source: HubDataset, otherwise: str) -> list[dict]:
        asked.append((source.repository, source.split, otherwise))
        return [ARC] * 3

    monkeypatch.setattr(choices, "hub_rows", hub_rows)
    with pytest.raises(ConfigError, match="holds 3 questions, arc_easy has 2,376"):
        load_choices("arc_easy")
    assert asked == [("allenai/ai2_arc", "test", "--questions arc_easy=FILE")]
    monkeypatch.setitem(CHOICE_SETS, "arc_easy", (CHOICE_SETS["arc_easy"][0], 3))
    assert len(load_choices("arc_easy")[1]) == 3


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (r'["\ud800", "b"]', "row 1 .*'choices' holds half a character"),
        ("[" * 100_000, "row 1 .*no list of texts"),
        ('{"text": ["a", "b"], "text": ["c", "d"], "label": ["A", "B"]}', "row 1 .*no list of"),
    ],
    ids=["half a character", "nested deeply", "a field twice"],
)
def test_json_in_a_cell_is_checked_as_a_file_of_it_is(cell: str, said: str, tmp_path: Path) -> None:
    file = write(tmp_path / "mmlu.csv", [{"question": "q", "choices": cell, "answer": "0"}])
    with pytest.raises(ConfigError, match=said):
        load_choices(f"mmlu={file}")
    file = write(tmp_path / "arc.csv", [{"question": "q", "choices": cell, "answerKey": "A"}])
    with pytest.raises(ConfigError, match=r"row 1 .*(no mapping of|half a character)"):
        load_choices(f"arc={file}")


def test_a_letter_that_is_another_choices_text_says_not_which_is_right() -> None:
    lettered = MMLU | {"choices": ["B", "A"], "answer": "A"}
    with pytest.raises(ConfigError, match="'answer' is 'A', the letter of choice 1 and the text"):
        read_choices([lettered], "here")
    assert read_choices([lettered | {"choices": ["A", "B"]}], "here")[0].right == 0
    assert read_choices([lettered | {"answer": 0}], "here")[0].right == 0
