"""The arithmetic task: right answers, splits that never overlap, files that verl reads."""

import pyarrow.parquet as pq
import pytest

from rsp_rl.data import arithmetic
from rsp_rl.data.arithmetic import DATA_SOURCE, Problem, generate, write_dataset
from rsp_rl.data.made import verl_rows
from tests.unit.other_process import printed

SAMPLE = [p for split in arithmetic.SPLIT_SHARES for p in generate(split, 300, seed=5)]


def test_a_problem_renders_as_expected():
    problem = Problem((7, 2, -4))
    assert problem.question == "Compute 7+2-4."
    assert problem.answer == "5"
    assert problem.direct_solution == r"\boxed{5}"
    assert problem.reasoned_solution == "7+2=9\n9-4=5\n" + r"\boxed{5}"


def test_every_step_and_answer_is_right():
    for problem in SAMPLE:
        assert problem.answer == str(eval(problem.expression))
        *steps, boxed = problem.reasoned_solution.split("\n")
        assert len(steps) == len(problem.terms) - 1
        for left, right in (step.split("=") for step in steps):
            assert eval(left) == int(right)
        assert boxed == problem.direct_solution == rf"\boxed{{{problem.answer}}}"


def test_problems_keep_the_rules_of_the_task():
    assert {len(p.terms) - 1 for p in SAMPLE} == set(arithmetic.STEPS)
    for problem in SAMPLE:
        assert all(1 <= abs(term) <= 9 for term in problem.terms)
        assert all(0 <= r <= arithmetic.MAX_RESULT for r in problem.partial_results)


def test_splits_share_no_problem_and_add_up():
    assert sum(arithmetic.SPLIT_SHARES.values()) == 100
    questions = {
        split: {p.question for p in generate(split, 800)} for split in arithmetic.SPLIT_SHARES
    }
    assert all(len(q) == 800 for q in questions.values())
    assert len(set.union(*questions.values())) == 2_400


def test_the_split_of_a_problem_never_changes():
    # Golden values: moving a problem between splits would leak it from training into evaluation.
    problems = [Problem((1, 1, 1)), Problem((1, 1, 2)), Problem((1, 2, 1))]
    assert [p.split for p in problems] == ["warmup", "train", "heldout"]


def test_generation_is_repeatable_in_another_process():
    code = (
        "from rsp_rl.data.arithmetic import generate;"
        "print([p.expression for p in generate('train', 20, seed=3)])"
    )
    assert eval(printed(code)) == [p.expression for p in generate("train", 20, seed=3)]


def test_a_larger_set_only_appends_and_another_seed_differs():
    assert generate("train", 200)[:50] == generate("train", 50)
    assert generate("train", 50, seed=1) != generate("train", 50)


def test_rows_have_the_schema_of_verl_and_unique_indices():
    problems = generate("heldout", 30)
    rows = verl_rows(problems, DATA_SOURCE)
    assert rows[0] == {
        "data_source": "arithmetic",
        "prompt": [{"role": "user", "content": problems[0].question}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": problems[0].answer},
        "extra_info": {"split": "heldout", "index": 0},
    }
    assert len({row["extra_info"]["index"] for row in rows}) == 30


def test_files_are_whole_and_the_same_when_written_again(tmp_path):
    paths = write_dataset(tmp_path / "data", train_size=64, heldout_size=8)
    before = {split: path.read_bytes() for split, path in paths.items()}
    write_dataset(tmp_path / "data", train_size=64, heldout_size=8)
    assert {split: path.read_bytes() for split, path in paths.items()} == before
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == [
        "heldout.parquet",
        "train.parquet",
    ]
    assert pq.read_table(paths["train"]).to_pylist() == verl_rows(
        generate("train", 64), DATA_SOURCE
    )


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    paths = write_dataset(tmp_path, train_size=8, heldout_size=8)
    before = paths["train"].read_bytes()

    def fail(table, path):
        path.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_dataset(tmp_path, train_size=9, heldout_size=8)
    assert paths["train"].read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_bad_input_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="unknown split 'test'"):
        generate("test", 5)
    with pytest.raises(ValueError, match="at least 1"):
        generate("train", 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        write_dataset(tmp_path / "file")


def test_a_size_beyond_the_split_is_refused(monkeypatch):
    monkeypatch.setattr(arithmetic, "STEPS", (2,))
    with pytest.raises(ValueError, match="hardly more than"):
        generate("heldout", 5_000)


@pytest.mark.parametrize(
    ("option", "message"),
    [(["--train-size", "0"], "at least 1"), (["--bogus"], "unrecognized arguments")],
)
def test_the_command_line_refuses_bad_options(tmp_path, capsys, option, message):
    with pytest.raises(SystemExit) as exit_info:
        arithmetic.main(["--output", str(tmp_path), *option])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_line_writes_both_files(tmp_path):
    output = tmp_path / "a" / "b"
    arithmetic.main(["--output", str(output), "--train-size", "10", "--heldout-size", "4"])
    assert pq.read_metadata(output / "train.parquet").num_rows == 10
    assert pq.read_metadata(output / "heldout.parquet").num_rows == 4
