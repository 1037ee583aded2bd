"""Made tasks with steps as files: repeatable, whole, no question in two of them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data import arithmetic_steps, made_names, prontoqa, prosqa
from rsp_rl.data.made_steps import SPLITS, draw_distinct, write_step_files
from rsp_rl.data.step_problems import StepProblem, load_step_problems
from tests.properties import examples
from tests.unit.other_process import printed

TASKS = {task.__name__: task for task in (arithmetic_steps, prontoqa, prosqa)}
SMALL = [f"--{split}-size={size}" for split, size in zip(SPLITS, (12, 3, 4), strict=True)]


@pytest.fixture(params=TASKS.values(), ids=TASKS)
def task(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


def test_the_command_line_writes_the_same_files_again(task: ModuleType, tmp_path: Path) -> None:
    files = [tmp_path / "a" / f"{split}.jsonl" for split in SPLITS]
    task.main(["--output", str(tmp_path / "a"), *SMALL])
    before = [file.read_bytes() for file in files]
    task.main(["--output", str(tmp_path / "a"), *SMALL])
    assert [file.read_bytes() for file in files] == before
    assert sorted((tmp_path / "a").iterdir()) == sorted(files)
    assert [len(load_step_problems(str(file))) for file in files] == [12, 3, 4]
    task.main(["--output", str(tmp_path / "b"), "--seed", "1", *SMALL])
    assert (tmp_path / "b" / "train.jsonl").read_bytes() != before[0]


def test_splits_share_no_question(task: ModuleType) -> None:
    questions = [{p.question for p in task.generate(split, 150)} for split in SPLITS]
    assert [len(asked) for asked in questions] == [150, 150, 150]
    assert len(set.union(*questions)) == 450


def test_generation_is_repeatable_in_another_process(task: ModuleType) -> None:
    code = f"from {task.__name__} import generate; print(generate('train', 8, seed=3)[-1].question)"
    assert printed(code).strip() == task.generate("train", 8, seed=3)[-1].question


@examples(15)
@given(seed=st.integers(), split=st.sampled_from(SPLITS), size=st.integers(1, 4))
@pytest.mark.parametrize("name", TASKS)
def test_a_larger_set_only_appends_and_no_question_or_step_repeats(
    name: str, seed: int, split: str, size: int
) -> None:
    problems = TASKS[name].generate(split, size + 2, seed)
    assert TASKS[name].generate(split, size, seed) == problems[:size]
    assert len({problem.question for problem in problems}) == size + 2
    if name != arithmetic_steps.__name__:  # 1+1=2 may well come twice there
        assert all(len({*problem.steps}) == len(problem.steps) for problem in problems)


def test_sums_are_right_step_by_step() -> None:
    for problem in arithmetic_steps.generate("train", 300):
        total, *rest = re.findall(r"[+-]?\d", problem.question.removeprefix("Compute "))
        for step, term in zip(problem.steps, rest, strict=True):
            assert step == f"{total}{term}={int(total) + int(term)}"
            total = str(int(total) + int(term))
        assert problem.answer == total


@pytest.mark.parametrize(("split", "size"), [("test", 5), ("train", 0), ("train", -1)])
def test_what_there_is_not(task: ModuleType, split: str, size: int) -> None:
    with pytest.raises(ValueError, match="split"):
        task.generate(split, size)


def test_bad_input_is_one_clear_error(
    task: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for options, message in (
        (["--output", str(tmp_path / "file")], "file is a file: name a folder"),
        (["--output", str(tmp_path), *SMALL, "--train-size", "0"], "at least 1 problem"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            task.main(options)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_more_problems_than_there_are_is_an_error_and_no_endless_search() -> None:
    def draw(rng: random.Random) -> StepProblem:
        return StepProblem(f"Which is {rng.randrange(3)}?", ("s",), "a")

    assert len(draw_distinct(draw, "heldout", 3, 0)) == 3
    with pytest.raises(ConfigError, match=r"size of split 'heldout' is 4: .* no more than 3"):
        draw_distinct(draw, "heldout", 4, 0)


def test_a_bad_size_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heldout"):
        write_step_files(tmp_path / "out", prosqa.generate, {"train": 2, "heldout": 0})
    assert not (tmp_path / "out").exists()


def test_names_can_be_told_apart() -> None:
    for names in (made_names.PEOPLE, made_names.KINDS, made_names.QUALITIES):
        assert len({*names}) == len(names)
        assert not [(a, b) for a in names for b in names if a != b and b.startswith(a)]
    assert all(kind[0] not in "aeiou" for kind in made_names.KINDS)
    assert not {*made_names.KINDS} & {*made_names.QUALITIES}
