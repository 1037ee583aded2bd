"""GSM8K with its equations as steps, from both forms; what is left out is counted and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.gsm8k_steps import main, read_gsm8k
from rsp_rl.data.step_problems import StepProblem, load_step_problems

PLAIN = {
    "question": "Tom has 3 bags of 4 pears and eats 2. How many are left?",
    "answer": "He had 3*4 = <<3*4=12>>12 pears.\nNow 12-2 = $<<12-2=10>>10 are left.\n#### 10",
}
PROBLEM = StepProblem(PLAIN["question"], ("<<3*4=12>>", "<<12-2=10>>"), "10")
LINE = f"{PLAIN['question']}||<<3*4=12>> <<12-2=10>> #### 10\n"


def plain(file: Path, *rows: dict[str, str]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_both_forms_give_the_same_problem(tmp_path: Path) -> None:
    text = tmp_path / "train.txt"
    text.write_bytes(b"\xef\xbb\xbf" + LINE.replace("\n", "\r\n").encode() + b"\n")
    for file in (text, plain(tmp_path / "train.jsonl", PLAIN)):
        reading = read_gsm8k(file)
        assert reading.problems == [PROBLEM]
        assert (reading.rows, reading.unlike, reading.stepless) == (1, 0, {})


def test_commas_of_thousands_and_equations_that_end_elsewhere(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": "<<4*300=1,200>>1,200\n#### 1,200"},
        {"question": "b", "answer": "<<4*300=1200>>1200 and one more\n#### 1201"},
        {"question": "c", "answer": "<<1/2=.5>>.5 of it\n#### 0.50"},
        {"question": "d", "answer": "<<x=y>>\n#### 5"},
        {"question": "e", "answer": "<<x=1,2>>\n#### x, 1,2 or 1,234,567"},
    ]
    reading = read_gsm8k(plain(tmp_path / "train.jsonl", *rows))
    assert [problem.answer for problem in reading.problems] == [
        "1200",
        "1201",
        "0.50",
        "5",
        "x, 1,2 or 1234567",
    ]
    assert reading.problems[0].steps == ("<<4*300=1,200>>",)
    assert reading.unlike == 3


@pytest.mark.parametrize(
    ("solution", "cause"),
    [
        ("It is 5.", "no steps"),
        ("<<>> <<2+3=5>>", "empty or not closed"),
        ("<< >> <<2+3=5>>", "empty or not closed"),
        ("<<2+3=5> and <<2+3=5>>", "empty or not closed"),
        ("<<2+3=5>> so 5", "more than equations"),
    ],
)
def test_rows_without_steps_are_counted_by_cause(solution: str, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    file.write_text(LINE * 29 + f"q||{solution} #### 5\n")
    reading = read_gsm8k(file)
    assert (reading.rows, len(reading.problems)) == (30, 29)
    [(found, count)] = reading.stepless.items()
    assert (cause in found, count) == (True, 1)
    assert reading.first[found] == f"dataset {file}, line 30"
    with pytest.raises(
        ConfigError, match=rf"1 of 30 rows cannot be learnt from \(.*{cause}.*: 1, f"
    ):
        read_gsm8k(file, max_left_out=0.03)
    kept = read_gsm8k(file, needs_steps=False, max_left_out=0)
    assert (len(kept.problems), kept.problems[-1].steps) == (30, ())


def test_a_file_without_any_steps_is_refused_at_any_share(tmp_path: Path) -> None:
    file = plain(tmp_path / "train.jsonl", {"question": "q", "answer": "5\n#### 5"})
    with pytest.raises(ConfigError, match="1 of 1 rows cannot be learnt from"):
        read_gsm8k(file, max_left_out=1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", LINE + "no bars\n", r"a\.txt, line 2: no \|\| after the question, 'no bars"),
        ("a.txt", LINE + "q||<<1+1=2>> 2\n", r"a\.txt, line 2: no #### before an answer"),
        ("a.txt", "q||<<1+1=2>> ####\n", r"line 1: 'answer' is empty"),
        ("a.txt", "||<<1+1=2>> #### 2\n", r"line 1: 'question' is ''"),
        ("a.txt", "\n", r"a\.txt has no rows"),
        ("a.jsonl", '{"question": "q", "answer": "5"}', r"a\.jsonl, row 0: no #### before"),
        ("a.jsonl", '{"problem": "q", "answer": "5"}', r"row 0: no text as 'question' and 'answ"),
        ("a.jsonl", '{"question": "q", "answer": 5}', r"row 0: no text as 'question' and 'answ"),
        ("a.md", "", r"a\.md: \.md is no format"),
    ],
)
def test_files_of_neither_form(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_gsm8k(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"q||<<1+1=2>> #### 2\xff\n")
    with pytest.raises(ConfigError, match=r"a\.txt is not UTF-8"):
        read_gsm8k(tmp_path / "a.txt")
    for name in ("none.txt", "none.jsonl"):
        with pytest.raises(ConfigError, match=r"none.*check --heldout"):
            read_gsm8k(tmp_path / name, "--heldout")
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="--max-left-out"):
            read_gsm8k(tmp_path / "a.txt", max_left_out=share)


def test_the_command_line_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stepless = {"question": "r", "answer": "5\n#### 5"}
    shared = {**PLAIN, "question": "Both?"}
    files = {
        "train": plain(tmp_path / "a.jsonl", *[PLAIN] * 40, shared, stepless),
        "heldout": plain(tmp_path / "b.jsonl", {**shared, "question": "both ?"}, stepless),
    }
    main([*(f"--{split}={file}" for split, file in files.items()), f"--output={tmp_path}"])
    said = capsys.readouterr().err.splitlines()
    assert "40 of 42 rows; left out: no steps: 1, first" in said[0]
    assert "left out as another file asks it: 1;" in said[0]
    assert "2 of 2 rows; kept without steps: no steps: 1, first" in said[1]
    assert load_step_problems(str(tmp_path / "train.jsonl")) == [PROBLEM] * 40
    held_out = load_step_problems(str(tmp_path / "heldout.jsonl"), needs_steps=False)
    assert [len(problem.steps) for problem in held_out] == [2, 0]


def test_the_command_line_ends_with_one_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = plain(tmp_path / "a.jsonl", PLAIN)
    for options, message in (
        ([f"--output={tmp_path}"], "name a file"),
        ([f"--train={file}", f"--output={file}"], "is a file: name a folder"),
        ([f"--train={tmp_path}/none.txt", f"--output={tmp_path}"], "No such file"),
        ([f"--train={file}", f"--heldout={file}", f"--output={tmp_path}"], "every question of"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            main(options)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err


def test_sentences_are_lines_without_annotations(tmp_path: Path) -> None:
    rows = [PLAIN, {"question": "b", "answer": "It is 5.\n\n#### 5"}]
    reading = read_gsm8k(plain(tmp_path / "train.jsonl", *rows), sentences=True)
    assert [problem.steps for problem in reading.problems] == [
        ("He had 3*4 = 12 pears.", "Now 12-2 = $10 are left."),
        ("It is 5.",),
    ]
    assert (reading.stepless, reading.unlike) == ({}, 0)


def test_a_row_of_no_sentences_is_left_out(tmp_path: Path) -> None:
    rows = [PLAIN, {"question": "b", "answer": "<<2+3=5>>\n#### 5"}]
    file = plain(tmp_path / "train.jsonl", *rows)
    reading = read_gsm8k(file, sentences=True, max_left_out=0.5)
    assert len(reading.problems) == 1
    assert reading.stepless == {"no steps": 1}


def test_icots_form_has_no_sentences(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(LINE)
    with pytest.raises(ConfigError, match=r"iCoT's form, --train .* has equations alone"):
        read_gsm8k(tmp_path / "train.txt", sentences=True)
