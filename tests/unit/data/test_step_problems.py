"""Files of problems with steps: what is written is read again, what is no problem is one error."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.step_problems import (
    FIELDS,
    StepProblem,
    load_step_problems,
    problems_digest,
    step_problem,
    write_step_problems,
)
from tests.properties import examples

ROW = {"question": "What is 2+3-1?", "steps": ["2+3=5", "5-1=4"], "answer": "4"}
PROBLEM = StepProblem("What is 2+3-1?", ("2+3=5", "5-1=4"), "4")

#: By what is wrong, a row and what its error says.
BAD = {
    "no steps": ({"question": "q", "answer": "a"}, "'steps' is missing; every row needs"),
    "null": (ROW | {"steps": None}, "'steps' is null"),
    "empty steps": (ROW | {"steps": []}, "'steps' is empty; write a step at least, or drop"),
    "steps of text": (ROW | {"steps": "2+3=5"}, "'steps' is '2.3=5', not a list of texts"),
    "a number as step": (ROW | {"steps": ["2+3=5", 4]}, r"'steps\[1\]' is 4, no text; write it as"),
    "an empty step": (ROW | {"steps": ["2+3=5", " "]}, r"'steps\[1\]' is empty"),
    "a step of two lines": (ROW | {"steps": ["a\nb"]}, r"'steps\[0\]' holds a line break"),
    "a line's end": (ROW | {"steps": ["a\n"]}, r"'steps\[0\]' holds a line break"),
    "a line break of Unicode": (ROW | {"answer": "a\u2028b"}, "'answer' holds a line break"),
    "the mark": (ROW | {"steps": ["### 4"]}, r"'steps\[0\]' holds ###.*begins the answer's line"),
    "an answer with the mark": (ROW | {"answer": "### 4"}, "'answer' holds ###"),
    "a number as answer": (ROW | {"answer": 4}, "'answer' is 4, no text; write it as text"),
    "an empty answer": (ROW | {"answer": ""}, "'answer' is empty"),
    "a blank question": (ROW | {"question": " \n"}, "'question' is ' .n'; write what is asked"),
    "a question of another type": (ROW | {"question": ["q"]}, "'question' is .'q'., no text"),
    "half a character": (ROW | {"steps": ["a", "b\ud800"]}, "'steps' holds half a character"),
}


@pytest.mark.parametrize(("row", "message"), BAD.values(), ids=BAD)
def test_what_is_no_problem_names_file_row_cause_and_mend(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in (ROW, row)))
    with pytest.raises(ConfigError, match=rf"^dataset {file}, row 1: {message}"):
        load_step_problems(str(file))


def test_every_format_holds_the_same(tmp_path: Path) -> None:
    """Coconut's own files are one list, with more in a row than is read."""
    lines, whole, table = (tmp_path / f"train.{kind}" for kind in ("jsonl", "json", "parquet"))
    lines.write_text(json.dumps(ROW) + "\n")
    whole.write_text(json.dumps([ROW | {"edges": [[0, 2]], "root": 0}]))
    pq.write_table(pa.Table.from_pylist([ROW]), table)
    for file in (lines, whole, table):
        assert load_step_problems(str(file)) == [PROBLEM]
    assert load_step_problems([str(lines), str(table)]) == [PROBLEM, PROBLEM]


def test_files_that_are_none(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(ConfigError, match=r"empty\.jsonl has no rows"):
        load_step_problems(str(empty))
    with pytest.raises(ConfigError, match=r"does not exist; check --train"):
        load_step_problems(str(tmp_path / "none.jsonl"), "--train")
    text = tmp_path / "train.txt"
    text.write_text("q||<<1+1=2>> #### 2\n")
    with pytest.raises(ConfigError, match=r"\.txt is no format"):
        load_step_problems(str(text))


def test_steps_are_needed_where_they_are_learnt_from(tmp_path: Path) -> None:
    file = tmp_path / "heldout.jsonl"
    without = StepProblem("q", (), "a")
    with pytest.raises(ConfigError, match=r"row 1 of what .* 'steps' is empty"):
        write_step_problems(file, [PROBLEM, without])
    assert not file.exists()
    write_step_problems(file, [PROBLEM, without], needs_steps=False)
    assert load_step_problems(str(file), needs_steps=False) == [PROBLEM, without]
    with pytest.raises(ConfigError, match="row 1: 'steps' is empty"):
        load_step_problems(str(file))


def test_nothing_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no problems to write"):
        write_step_problems(tmp_path / "train.jsonl", [])
    assert not list(tmp_path.iterdir())


LINES = st.text(min_size=1, max_size=20)


@examples(60)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"question": LINES, "steps": st.lists(LINES, min_size=1, max_size=3), "answer": LINES}
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whatever_is_taken_comes_back_as_it_was(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    taken = []
    for row in rows:
        with contextlib.suppress(ConfigError):
            taken.append(step_problem(row, "here"))
    if taken:
        file = tmp_path_factory.mktemp("rows") / "train.jsonl"
        write_step_problems(file, taken)
        assert load_step_problems(str(file)) == taken
        assert {*json.loads(file.read_bytes().split(b"\n")[0])} == {*FIELDS}


def test_a_csv_files_steps_are_json_in_their_cell(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text('question,steps,answer\nWhat is 2+3-1?,"[""2+3=5"", ""5-1=4""]",4\n')
    assert load_step_problems(str(file)) == [PROBLEM]
    for cell, said in (
        (r'"[""\ud800""]"', "'steps' holds half a character"),
        ("[" * 100_000, "not a list of texts"),
    ):
        file.write_text(f"question,steps,answer\nq,{cell},4\n")
        with pytest.raises(ConfigError, match=f"row 0: .*{said}"):
            load_step_problems(str(file))


def test_a_digest_is_of_all_that_problems_say_and_of_their_order() -> None:
    first, second = StepProblem("a?", ("b",), "c"), StepProblem("d?", ("e", "f"), "g")
    others = ([second, first], [first], [first, StepProblem("d?", ("ef",), "g")])
    digest = problems_digest([first, second])
    assert digest == problems_digest([first, second])
    assert len({digest, *map(problems_digest, others)}) == 4
