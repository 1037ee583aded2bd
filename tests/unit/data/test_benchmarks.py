"""Benchmarks: golds and questions as SimpleRL-Zoo makes them, and clear errors on bad files."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data import arithmetic, benchmarks
from rsp_rl.data.benchmarks import (
    BENCHMARKS,
    DATA_DIR_VARIABLE,
    HubDataset,
    load_benchmark,
    read_problems,
)
from rsp_rl.grading import grade
from tests.unit.benchmark_files import (
    EIGHT,
    GOLD_RULES,
    KINDS,
    made_entry,
    question_of,
    rows_and_problems,
    write_files,
)


@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize("kind", KINDS)
def test_golds_and_questions_are_simplerl_zoos(kind: str, name: str, tmp_path: Path) -> None:
    rows, problems = rows_and_problems(kind, name, tmp_path)
    golds = [GOLD_RULES[name](row) for row in rows]
    assert [problem.gold for problem in problems] == golds
    for row, gold, problem in zip(rows, golds, problems, strict=True):
        assert problem.question == question_of(row, gold)
        assert problem.benchmark == name
    assert len({problem.id for problem in problems}) == len(problems)


@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_gold_answers_its_own_problem(kind: str, name: str, tmp_path: Path) -> None:
    _, problems = rows_and_problems(kind, name, tmp_path)
    for problem in problems[:: max(1, len(problems) // 20)]:
        verdict = grade(f"So it is $\\boxed{{{problem.gold}}}$.", problem.gold, name)
        assert bool(verdict) == bool(problem.gold), problem


def test_whole_numbers_of_amc23_match_answers_without_a_point(tmp_path: Path) -> None:
    problem = read_problems(made_entry("amc23"), write_files(tmp_path))[0]
    assert problem.gold == "27.0"
    assert grade("\\boxed{27}", problem.gold, "amc23")


def test_ids_are_the_files_own_where_they_are_unique(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    ids = {name: read_problems(made_entry(name), folder)[1].id for name in EIGHT}
    assert ids["math500"] == "test/b.json"
    assert (ids["olympiadbench"], ids["aime24"], ids["amc23"]) == ("1610", "61", "1")
    assert ids["gsm8k"] == ids["college_math"] == "1"


def test_arithmetic_is_what_the_recipe_holds_out(tmp_path: Path) -> None:
    heldout = arithmetic.write_dataset(tmp_path, train_size=1)["heldout"]
    rows = pq.read_table(heldout).to_pylist()
    problems = load_benchmark("arithmetic", tmp_path)  # generated: needs no file there
    assert [problem.question for problem in problems] == [
        row["prompt"][0]["content"] for row in rows
    ]
    assert [problem.gold for problem in problems] == [
        row["reward_model"]["ground_truth"] for row in rows
    ]


def test_the_folder_is_the_argument_else_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmarks.BENCHMARKS, "gsm8k", made_entry("gsm8k"))
    folder = write_files(tmp_path / "files")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(folder))
    by_variable = load_benchmark("gsm8k")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "elsewhere"))
    assert load_benchmark("gsm8k", folder) == by_variable
    with pytest.raises(ConfigError, match=r"elsewhere/gsm8k/test\.jsonl cannot be read"):
        load_benchmark("gsm8k")


def test_a_hub_dataset_is_read_like_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's reader on a local repository: a folder with the same files."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = write_files(tmp_path / "files")
    for name in EIGHT:
        entry = replace(made_entry(name), source=HubDataset(str(folder / name)))
        assert read_problems(entry, None) == read_problems(entry, folder)
    assert any((tmp_path / "cache").iterdir())  # and nowhere else


def test_a_hub_dataset_that_cannot_be_had(tmp_path: Path) -> None:
    entry = replace(made_entry("gsm8k"), source=HubDataset(str(tmp_path / "nothing")))
    with pytest.raises(ConfigError, match=r"hub dataset .*nothing .*RSP_RL_DATA_DIR or --data-dir"):
        read_problems(entry, None)


def test_unknown_benchmark() -> None:
    with pytest.raises(ConfigError, match=r"unknown benchmark 'gsm9k'; use one of gsm8k, math500"):
        load_benchmark("gsm9k")


def _line(**fields: object) -> str:
    return json.dumps({"question": "Q", "problem": "Q", "id": 9, **fields})


@pytest.mark.parametrize(
    ("name", "line", "cause"),
    [
        ("gsm8k", '{"question": "Wh', r"test.jsonl, line 3 is damaged: .*get or write it anew"),
        ("gsm8k", '{"question": "\\ud83d', "line 3 is damaged"),
        ("gsm8k", "[" * 100_000, "line 3 is damaged: it is nested too deeply"),
        ("gsm8k", '{"a": 1, "a": 2}', "line 3 is damaged: an object names a field twice"),
        ("gsm8k", "", "holds 2 problems, gsm8k has 3"),
        ("gsm8k", "7", "line 3: 7 is no JSON object"),
        ("gsm8k", '{"answer": "#### 7"}', "line 3 is no row of gsm8k .no field 'question'"),
        ("gsm8k", '{"question": "Why?"}', "no field 'answer'"),
        ("gsm8k", '{"question": "Why?", "answer": "7"}', "no '####' in field 'answer'"),
        ("gsm8k", '{"question": " ", "answer": "#### 7"}', "field 'question' is empty"),
        ("gsm8k", '{"question": 3, "answer": "#### 7"}', "line 3 is no row"),
        ("olympiadbench", '{"question": "Q", "final_answer": [], "id": 1}', "line 3 is no row"),
        ("olympiadbench", '{"question": "Q", "final_answer": null, "id": 1}', "line 3 is no row"),
        ("olympiadbench", '{"question": "Q", "final_answer": ["7"]}', "no field 'id'"),
        ("aime24", '{"problem": "Q", "answer": null, "id": 62}', "neither text nor number"),
        ("aime24", '{"problem": "Q", "answer": "7", "id": 60}', "two problems with id '60'"),
        ("minerva_math", '{"problem": "Q", "solution": "7"}', "1 problems without a gold answer"),
        ("olympiadbench", _line(final_answer="74"), "'final_answer' is '74', not a list of texts"),
        ("olympiadbench", _line(final_answer=[74]), "'final_answer' is .74., not a list of texts"),
        ("olympiadbench", _line(final_answer=["7"], id=None), "line 3 .*'id' is None, neither"),
        ("aime24", _line(answer=math.nan), "line 3 .*'answer' is nan, neither text nor number"),
        ("aime24", _line(answer=-math.inf), "'answer' is -inf, neither text nor number"),
        ("aime24", _line(answer=True), "'answer' is True, neither text nor number"),
        ("aime24", _line(answer="nan"), "the gold answer is 'nan', a missing value"),
        ("aime24", _line(answer="7", id=7.5), "'id' is 7.5, neither text nor whole number"),
        ("gsm8k", _line(answer=7), "line 3 .*'answer' is 7, not text"),
        ("gsm8k", _line(answer=["#### 7"]), "'answer' is .*, not text"),
        ("gsm8k", _line(answer="#### <NA>"), "the gold answer is '<NA>', a missing value"),
        ("minerva_math", _line(solution=None), "'solution' is None, not text"),
        ("college_math", _line(answer={"a": 1}), "'answer' is .*, not text"),
        ("gsm8k", _line(question="a \ud83d?", answer="#### 7"), "line 3 .*'question' holds half a"),
        ("gsm8k", _line(answer="#### \udc00"), "line 3 .*'gold' holds half a character"),
        ("aime24", _line(answer="7", id="\udfff"), "line 3 .*'id' holds half a character"),
    ],
)
def test_bad_rows(name: str, line: str, cause: str, tmp_path: Path) -> None:
    file = write_files(tmp_path) / name / "test.jsonl"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(ConfigError, match=cause):
        read_problems(replace(made_entry(name), problems=3), tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = write_files(tmp_path) / "gsm8k" / "test.jsonl"
    file.write_bytes(file.read_bytes() + b'{"question": "\xff"}\n')
    with pytest.raises(ConfigError, match="line 3 is damaged"):
        read_problems(made_entry("gsm8k"), tmp_path)


@pytest.mark.parametrize("name", EIGHT)
def test_another_number_of_problems_is_an_error(name: str, tmp_path: Path) -> None:
    folder, entry = write_files(tmp_path), made_entry(name)
    with pytest.raises(ConfigError, match=f"{entry.problems} problems, {name} has {999}"):
        read_problems(replace(entry, problems=999), folder)


def test_adding_a_benchmark_is_one_entry(tmp_path: Path) -> None:
    entry = benchmarks.Benchmark(
        name="mine",
        source=HubDataset("someone/mine"),
        question="q",
        gold=lambda row: row["a"],
        problems=1,
        licence="CC0",
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "test.jsonl").write_text(json.dumps({"q": "1+1?", "a": "2"}) + "\n")
    assert read_problems(entry, tmp_path) == [benchmarks.Problem("mine", "0", "1+1?", "2")]


def test_every_entry_is_complete() -> None:
    assert set(BENCHMARKS) == {*EIGHT, "arithmetic", "sums", "sums_digits"}
    for name, entry in BENCHMARKS.items():
        assert name == entry.name
        assert entry.licence
        if isinstance(entry.source, HubDataset) and entry.source.revision:
            assert len(entry.source.revision) == 40
