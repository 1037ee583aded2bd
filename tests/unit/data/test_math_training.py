"""The training set of the real recipes: what stays out, prompts as in evaluation, clear errors."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data import prepare
from rsp_rl.data.benchmarks import Problem, load_benchmark
from rsp_rl.data.math_training import (
    LOCAL_FILE,
    TrainingProblem,
    chat_messages,
    evenly_spaced,
    load_training_problems,
    select,
    training_rows,
    validation_rows,
    write_training_set,
)
from rsp_rl.data.near_duplicates import DuplicateFinder, same_text_key, word_ngrams
from rsp_rl.data.prompt_files import check_dataset
from rsp_rl.data.templates import ChatTemplate, get_template
from rsp_rl.placement.chat import place_in_chat
from tests.unit import templates
from tests.unit.benchmark_files import REAL_FILES

needs_real_files = pytest.mark.skipif(
    not (REAL_FILES / LOCAL_FILE).is_file(),
    reason="MATH is not ours to ship; RSP_RL_DATA_DIR may name a folder that holds it",
)


def _problem(question: str, *, row: int = 0, answer: str = "4", level: int = 3) -> TrainingProblem:
    return TrainingProblem(row, question, answer, level)


# Near duplicates, by hand.


def test_exact_means_the_same_text_but_for_blanks_case_and_unicode_form() -> None:
    assert same_text_key("Find $x$ \n if\tx²=4") == same_text_key("find $x$ if x2 = 4")
    assert same_text_key("x - 1") != same_text_key("x + 1")


def test_ngrams_by_hand() -> None:
    assert word_ngrams("a b c d", size=3) == {("a", "b", "c"), ("b", "c", "d")}
    assert word_ngrams("What is 2+2?", size=8) == {("what", "is", "2", "2")}
    assert word_ngrams("?!", size=8) == {()}


def test_similarity_by_hand() -> None:
    """Ten words make three 8-grams. Another last word leaves two in common: 2 / (3 + 3 - 2)."""
    finder = DuplicateFinder(["one two three four five six seven eight nine ten"])
    assert finder.similarity("one two three four five six seven eight nine zero") == 2 / 4
    assert finder.match("one two three four five six seven eight nine zero") == "near"
    # Another last two words leave one: 1 / 5.
    assert finder.similarity("one two three four five six seven eight zero zero") == 1 / 5
    assert finder.match("one two three four five six seven eight zero zero") is None
    assert finder.match("ONE two three four five six seven eight nine  ten") == "exact"
    assert finder.match("nothing alike") is None


@given(st.lists(st.text("ab 1", max_size=40), max_size=6), st.text("ab 1", max_size=40))
def test_similarity_is_the_largest_jaccard_index(held: list[str], text: str) -> None:
    """The inverted index gives what comparing with every text gives."""
    ngrams = word_ngrams(text)
    expected = max(
        (len(ngrams & word_ngrams(other)) / len(ngrams | word_ngrams(other)) for other in held),
        default=0.0,
    )
    assert DuplicateFinder(held).similarity(text) == expected


# What is kept.


def test_every_rule_counts_what_it_leaves_out() -> None:
    words = "one two three four five six seven eight nine"
    problems = [
        _problem("What is 2+2?", row=0),
        _problem("What is 3+3?", row=1, level=2),
        _problem("What is 4+4?", row=2, answer=""),
        _problem(f"{words} ten", row=3),
        _problem(f"{words} zero", row=4),
        _problem("what  is 2+2?", row=5),
        _problem("What is 5+5?", row=6, level=5),
    ]
    kept, counts = select(problems, [f"{words} ten"])
    assert [problem.row for problem in kept] == [0, 6]
    assert asdict(counts) == {
        "read": 7,
        "other_levels": 1,
        "without_answer": 1,
        "exact_duplicates": 1,
        "near_duplicates": 1,
        "repeated": 1,
        "kept": 2,
    }


def test_validation_is_spread_over_the_benchmark() -> None:
    problems = [Problem("math500", str(i), "Question?", "4") for i in range(10)]
    assert [p.id for p in evenly_spaced(problems, 4)] == ["0", "2", "5", "7"]
    assert evenly_spaced(problems, 10) == problems
    for size in (0, 11):
        with pytest.raises(ConfigError, match=rf"validation size {size} must be 1 to 10"):
            evenly_spaced(problems, size)


# Prompts: the text of evaluation, token for token.

QUESTIONS = (
    "Find $x$ if $x^2=4$ and $x>0$.",
    "A user wrote <|im_end|> in a \\boxed{} and {input}. ",
    "数学\u2028\n\nends with a break\n",
)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("length", [0, 20])
@pytest.mark.parametrize("name", ["qwen-boxed", "qwen25-math-cot"])
def test_training_prompts_are_evaluations_token_for_token(
    name: str, length: int, question: str
) -> None:
    tokenizer = templates.tokenizer_of("chatml")
    trained = place_in_chat(tokenizer, chat_messages(name, question), length)
    evaluated = get_template(name).place(tokenizer, question, length)
    assert trained.token_ids == evaluated.token_ids
    if length:
        assert trained.start == evaluated.start


def test_qwen_boxed_messages_are_simplerl_zoos() -> None:
    assert chat_messages("qwen-boxed", "What is 2+2?") == [
        {"role": "system", "content": "You are a helpful assistant."},
        {
            "role": "user",
            "content": "What is 2+2?\nPlease reason step by step, and put your final answer "
            "within \\boxed{}.",
        },
    ]


def test_llama_prompts_are_evaluations_token_for_token() -> None:
    template = get_template("llama-chat")
    assert isinstance(template, ChatTemplate)
    tokenizer = templates.tokenizer_of("llama_3")
    messages = chat_messages("llama-chat", QUESTIONS[0])
    trained = place_in_chat(tokenizer, messages, 20, **template.options)
    assert trained == template.place(tokenizer, QUESTIONS[0], 20)


@pytest.mark.parametrize("name", ["raw", "abel"])
def test_templates_without_turns_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"template '{name}' has no turns"):
        chat_messages(name, "What is 2+2?")


# Rows and files.


def test_rows_are_verls() -> None:
    [row] = training_rows([_problem("What is 2+2?", row=17)], "qwen-boxed")
    assert row["data_source"] == "math"
    assert row["reward_model"] == {"style": "rule", "ground_truth": "4"}
    assert row["extra_info"] == {"split": "train", "index": 17, "level": 3}
    [row] = validation_rows([Problem("math500", "a.json", "What is 2+2?", "4")], "qwen-boxed")
    assert row["data_source"] == "math500"
    assert row["extra_info"]["index"] == 0


def _source(folder: Path, rows: object) -> Path:
    file = folder / LOCAL_FILE
    file.parent.mkdir(parents=True)
    file.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return folder


ROW = {"problem": "What is 2+2?", "answer": "4", "difficulty": 3.0, "type": "Algebra"}


def test_local_rows_are_read(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "answer": None, "difficulty": 0.0}]
    assert load_training_problems(_source(tmp_path, rows)) == [
        TrainingProblem(0, "What is 2+2?", "4", 3),
        TrainingProblem(1, "What is 2+2?", "", 0),
    ]


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ("[{", r"train\.json is damaged"),
        ({"a": 1}, r"train\.json holds no list"),
        ([], r"train\.json holds no problems"),
        ([ROW, {"problem": "Q"}], r"train\.json, row 1 .*no field 'answer'"),
        ([{**ROW, "problem": " "}], r"row 0 .*the question is empty"),
        ([{**ROW, "difficulty": 3.5}], r"row 0 .*level 3\.5 is not a whole number"),
        ([{**ROW, "difficulty": "hard"}], r"row 0 .*invalid literal"),
        ([7], r"row 0 is no MATH problem"),
        ([{**ROW, "answer": float("nan")}], r"row 0 .*nan, a missing or infinite number"),
        ([{**ROW, "answer": ["1", "2"]}], r"row 0 .*a list of 2 answers"),
        ([{**ROW, "problem": "a \ud83d"}], r"row 0 .*'question' holds half a character"),
    ],
)
def test_bad_source_is_one_clear_error(tmp_path: Path, rows: object, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        load_training_problems(_source(tmp_path, rows))


@pytest.mark.parametrize(("answer", "gold"), [(0, "0"), (7.5, "7.5"), (["7"], "7"), (None, "")])
def test_golds_that_are_no_text(tmp_path: Path, answer: object, gold: str) -> None:
    assert load_training_problems(_source(tmp_path, [{**ROW, "answer": answer}]))[0].answer == gold


def test_missing_source_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.json cannot be read .*--data-dir"):
        load_training_problems(tmp_path)


def test_nothing_is_written_when_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no problem is left to train on"):
        write_training_set(tmp_path / "out", [_problem("Q?", level=1)], [], [], "qwen-boxed")
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="out is a file; name a folder"):
        write_training_set(tmp_path / "out", [_problem("Q?")], [], [], "qwen-boxed")


def test_written_files_are_ones_that_training_takes(tmp_path: Path) -> None:
    problems = [_problem("One?", row=1), _problem("Two?", row=2), _problem("Held out?", row=3)]
    held_out = [Problem("math500", "a.json", "held out?", "4")]
    counts = write_training_set(tmp_path, problems, held_out, ["held out?"], "qwen-boxed")
    assert counts.kept == 2
    assert check_dataset(str(tmp_path / "train.parquet")) == 2
    assert check_dataset(str(tmp_path / "validation.parquet")) == 1
    assert {file.name for file in tmp_path.iterdir()} == {
        "train.parquet",
        "validation.parquet",
        "counts.json",
    }


@needs_real_files
def test_the_real_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "math35"
    arguments = ("--data-dir", str(REAL_FILES), "--validation-size", "100")
    assert prepare.main(["--output", str(output), *arguments]) == 0
    counts = json.loads((output / "counts.json").read_text())
    assert counts == {
        "template": "qwen-boxed",
        "read": 7474,
        "other_levels": 1911,
        "without_answer": 4,
        "exact_duplicates": 0,
        "near_duplicates": 7,
        "repeated": 1,
        "kept": 5551,
    }
    assert "near duplicates: 7" in capsys.readouterr().err
    assert {file.name for file in output.iterdir()} == {
        "train.parquet",
        "validation.parquet",
        "counts.json",
    }
    train = pq.read_table(output / "train.parquet").to_pylist()
    assert check_dataset(str(output / "train.parquet")) == len(train)
    assert check_dataset(str(output / "validation.parquet")) == 100
    indices = [row["extra_info"]["index"] for row in train]
    assert len(set(indices)) == len(indices) == counts["kept"]
    finder = DuplicateFinder(p.question for p in load_benchmark("math500", REAL_FILES))
    assert not any(finder.match(_question(row)) for row in train)


def _question(row: dict) -> str:
    """The question within a row's user turn."""
    return row["prompt"][1]["content"].rpartition("\n")[0]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--template", "abel"), "has no turns"),
        (("--template", "nonsense"), "unknown template 'nonsense'"),
        (("--data-dir", "/nowhere"), "cannot be read"),
    ],
)
def test_the_command_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], cause: str
) -> None:
    assert prepare.main(["--output", str(tmp_path / "out"), *arguments]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert cause in line
    assert not (tmp_path / "out").exists()
