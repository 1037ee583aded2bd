"""Sentences of a question in another order, and nothing of its solution."""

from __future__ import annotations

import pytest

from rsp_rl.data import prosqa
from rsp_rl.data.restated import ANSWER, main, restated
from rsp_rl.data.step_problems import StepProblem, load_step_problems, write_step_problems


def test_all_is_said_again_and_the_solution_is_not():
    problems = prosqa.generate("train", 50, level="small")
    orders = 0
    for problem, again in zip(problems, restated(problems), strict=True):
        facts = problem.question.split(". ")[:-1]
        assert again.question == ". ".join(facts) + ". What was said?"
        assert sorted(again.steps) == sorted(fact + "." for fact in facts)
        assert again.answer == ANSWER
        orders += [*again.steps] != [fact + "." for fact in facts]
    assert orders > 40
    assert restated(problems) == restated(problems)
    assert restated(problems) != restated(problems, seed=1)


def test_the_command_line_writes_a_file_of_problems(tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    write_step_problems(data, prosqa.generate("train", 5, level="small"))
    main(["--data", str(data), "--output", str(tmp_path / "out.jsonl")])
    assert len(load_step_problems(str(tmp_path / "out.jsonl"))) == 5
    assert "5 problems" in capsys.readouterr().err


def test_a_task_that_states_nothing_is_refused(tmp_path, capsys):
    data = tmp_path / "train.jsonl"
    write_step_problems(data, [StepProblem("What is 1+1?", ("1+1=2",), "2")])
    with pytest.raises(SystemExit) as ended:
        main(["--data", str(data), "--output", str(tmp_path / "out.jsonl")])
    assert ended.value.code == 2
    assert "problem 0 says nothing before it asks" in capsys.readouterr().err
