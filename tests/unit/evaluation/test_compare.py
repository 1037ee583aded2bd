"""Comparison of runs: choices of step, differences and intervals by hand, refusals, files."""

import argparse
import csv
from pathlib import Path

import pytest

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.commands import compare as compare_command
from rsp_rl.evaluation import compare as command
from rsp_rl.evaluation.comparison import Estimate, compare
from rsp_rl.evaluation.metrics import paired_difference
from rsp_rl.evaluation.samples import read_samples
from tests.unit.evaluation.made_runs import (
    make_evaluation,
    sample,
    write_lines,
    write_manifest,
    write_samples,
)

HEADLINE = ("gsm8k", "aime24")


def make_run(root: Path, marks: dict[int, tuple[str, str]]):
    """A run from right (`+`) and wrong (`-`) marks of gsm8k's and aime24's problems by step."""
    folder = make_evaluation(root, dict.fromkeys(marks, 0), benchmarks={}, headline=HEADLINE)
    for step, by_benchmark in marks.items():
        for name, line in zip(HEADLINE, by_benchmark, strict=True):
            samples = [sample(str(i), correct=mark == "+") for i, mark in enumerate(line)]
            write_samples(folder, step, name, samples)
            rows = [{"id": str(i), "question": f"{i}?", "gold": "4"} for i in range(len(line))]
            write_lines(folder.problems(name), rows)
    return folder


@pytest.fixture
def two(tmp_path):
    """DAPO peaks at step 10, RSP at step 20; the best common step is 20."""
    make_run(tmp_path / "dapo", {0: ("+---", "--"), 10: ("+++-", "+-"), 20: ("++--", "+-")})
    make_run(tmp_path / "rsp", {0: ("+---", "--"), 10: ("++--", "--"), 20: ("++++", "++")})
    return [str(tmp_path / name) for name in ("dapo", "rsp")]


def opened(*texts: str):
    return [command.open_run(text) for text in texts]


def test_steps_and_values_by_hand(two):
    comparison = compare(opened(*two))
    assert comparison.peaks.steps == {"dapo": 10, "rsp": 20}
    assert comparison.common.steps == {"dapo": 20, "rsp": 20}
    peaks, common = comparison.peaks.cells, comparison.common.cells
    accuracies = {name: cell.accuracy.value for name, cell in peaks["dapo"].items()}
    assert accuracies == {"gsm8k": 0.75, "aime24": 0.5, "headline": 0.625}
    assert peaks["dapo"]["headline"].difference is None
    assert peaks["rsp"]["headline"].difference.value == pytest.approx(1 - 0.625)
    assert common["rsp"]["gsm8k"].difference.value == pytest.approx(0.5)
    curve = {step: e.value for step, e in comparison.curves["dapo"].items()}
    assert curve == {0: 0.125, 10: 0.625, 20: 0.5}


def test_intervals_are_paired(tmp_path):
    # Equal but for one of 20 problems: the difference is 0 or 1 to 3 problems, never negative,
    # however far each accuracy may be off.
    even, odd = "+-" * 10, "++" + "+-" * 9
    make_run(tmp_path / "a", {0: (even, even)})
    make_run(tmp_path / "b", {0: (odd, even)})
    cells = compare(opened(str(tmp_path / "a"), str(tmp_path / "b"))).peaks.cells["b"]
    assert cells["gsm8k"].difference == Estimate(pytest.approx(1 / 20), 0, pytest.approx(3 / 20))
    assert cells["aime24"].difference == Estimate(0, 0, 0)
    assert cells["aime24"].accuracy.low < 0.35


def test_intervals_agree_with_paired_difference(tmp_path):
    folders = [
        make_evaluation(
            tmp_path / name, {0: chance}, benchmarks={"gsm8k": (400, 1)}, headline=["gsm8k"]
        )
        for name, chance in (("a", 0.4), ("b", 0.5))
    ]
    cell = compare(opened(str(tmp_path / "a"), str(tmp_path / "b"))).peaks.cells["b"]["gsm8k"]
    paired = paired_difference(*(read_samples(f.step(0).samples("gsm8k")) for f in folders))
    assert cell.difference.value == pytest.approx(paired["difference"])
    # Ends of other drawings may land two steps of 1/400 away.
    assert cell.difference.low == pytest.approx(paired["low"], abs=0.006)
    assert cell.difference.high == pytest.approx(paired["high"], abs=0.006)


def test_training_seeds_are_averaged_and_widen_the_interval(tmp_path):
    make_run(tmp_path / "s1", {0: ("+" * 40, "+" * 40), 10: ("-" * 40, "-" * 40)})
    make_run(tmp_path / "s2", {0: ("-" * 40, "-" * 40), 20: ("+" * 40, "+" * 40)})
    (run,) = opened(f"RSP={tmp_path / 's1'},{tmp_path / 's2'}")
    assert run.name == "RSP"
    comparison = compare([run])
    assert comparison.peaks.steps == {"RSP": 0}  # the only step of both
    # Problems alone would leave no doubt at all; two seeds that disagree leave every doubt.
    assert comparison.peaks.cells["RSP"]["headline"].accuracy == Estimate(0.5, 0, 1)


def test_a_seed_is_drawn_once_for_all_benchmarks(tmp_path):
    # One seed knows only gsm8k, the other only aime24: whichever is drawn, the headline is 1/2.
    make_run(tmp_path / "s1", {0: ("+" * 9, "-" * 9)})
    make_run(tmp_path / "s2", {0: ("-" * 9, "+" * 9)})
    (run,) = opened(f"RSP={tmp_path / 's1'},{tmp_path / 's2'}")
    assert compare([run]).peaks.cells["RSP"]["headline"].accuracy == Estimate(0.5, 0.5, 0.5)


def test_a_benchmark_outside_the_headline_needs_all_runs(two, tmp_path):
    for root in two:
        folder = command.open_run(root).folders[0]
        write_samples(folder, 20, "amc23", [sample()])
        write_lines(folder.problems("amc23"), [{"id": "0", "question": "?", "gold": "4"}])
    comparison = compare(opened(*two))
    assert list(comparison.common.cells["rsp"]) == ["gsm8k", "aime24", "amc23", "headline"]
    assert "amc23" not in comparison.peaks.cells["rsp"]  # dapo's peak has none


def test_no_common_step(tmp_path):
    make_run(tmp_path / "a", {10: ("+-", "+-")})
    make_run(tmp_path / "b", {20: ("++", "+-")})
    comparison = compare(opened(str(tmp_path / "a"), str(tmp_path / "b")))
    assert comparison.common is None
    assert "No step is complete in all runs." in command.to_markdown(comparison)


def test_command_writes_tables_and_curves(two, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    compare_command.add_parser(parser.add_subparsers())
    output = tmp_path / "out"
    args = parser.parse_args(["compare", *two, "--output", str(output)])
    assert args.func(args) == 0
    text = (output / "comparison.md").read_text()
    assert "| benchmark | dapo (step 10) | rsp (step 20) | rsp − dapo |" in text
    assert "| 20 | 50.00 [" in text
    assert "optimistic" in text
    assert text in capsys.readouterr().out
    rows = list(csv.DictReader((output / "comparison.csv").open()))
    assert len(rows) == 2 * 2 * 3  # choices, runs, benchmarks with the headline
    assert {row["difference"] for row in rows if row["run"] == "dapo"} == {""}
    curves = list(csv.DictReader((output / "curves.csv").open()))
    assert [(row["run"], row["step"]) for row in curves][:2] == [("dapo", "0"), ("dapo", "10")]
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_names_of_runs(two, tmp_path, monkeypatch):
    assert command.open_run(f"DAPO={two[0]}").name == "DAPO"
    odd = tmp_path / "lr=1e-6,kl=0"
    make_run(odd, {0: ("+", "+")})
    assert command.open_run(str(odd)).name == "lr=1e-6,kl=0"
    assert command.open_run(f"low={odd}").name == "low"
    with pytest.raises(ConfigError, match="two runs are called 'dapo'"):
        compare(opened(two[0], two[0]))


def test_choice_of_protocol(two):
    (Path(two[0]) / "evaluation" / "quick").mkdir()
    with pytest.raises(ConfigError, match=r"several evaluations \['made_up', 'quick'\]"):
        command.open_run(two[0])
    assert command.open_run(two[0], "made_up").name == "dapo"
    with pytest.raises(RunFolderError, match="not 'rsp_paper'"):
        command.open_run(two[1], "rsp_paper")
    with pytest.raises(RunFolderError, match="holds no evaluation"):
        command.open_run(two[1] + "/nowhere")


def test_different_protocols_are_refused(two):
    folder = command.open_run(two[1]).folders[0]
    for step in folder.steps():
        write_manifest(folder, step, HEADLINE, fingerprint="beef")
    with pytest.raises(RunFolderError, match="different protocols or templates"):
        compare(opened(*two))


def test_different_headlines_are_refused(two):
    folder = command.open_run(two[1]).folders[0]
    for step in folder.steps():
        write_manifest(folder, step, ["gsm8k"])
    with pytest.raises(RunFolderError, match="average different benchmarks"):
        compare(opened(*two))


def test_different_problems_are_refused(two):
    folder = command.open_run(two[1]).folders[0]
    rows = [{"id": str(i), "question": f"{i}?", "gold": "4" if i else "5"} for i in range(4)]
    write_lines(folder.problems("gsm8k"), rows)
    with pytest.raises(RunFolderError, match=r"gsm8k\.problems\.jsonl and .* differ"):
        compare(opened(*two))


def test_samples_must_be_those_of_the_problems(two):
    folder = command.open_run(two[1]).folders[0]
    write_samples(folder, 20, "gsm8k", [sample(str(i)) for i in range(3)])
    with pytest.raises(RunFolderError, match=r"do not hold the same problems \(for one, '3'\)"):
        compare(opened(*two))


def test_a_run_without_a_complete_step_is_refused(two):
    folder = command.open_run(two[1]).folders[0]
    for step in folder.steps().values():
        step.metrics("aime24").unlink()
    with pytest.raises(RunFolderError, match="no step at which all of gsm8k, aime24 are done"):
        compare(opened(*two))


def test_missing_and_damaged_files_are_named(two):
    folder = command.open_run(two[1]).folders[0]
    folder.step(20).samples("gsm8k").unlink()
    with pytest.raises(RunFolderError, match=r"step_20/gsm8k\.samples\.jsonl is missing"):
        compare(opened(*two))
    folder.problems("aime24").write_text('{"id": "0"}\n')
    with pytest.raises(RunFolderError, match=r"aime24\.problems\.jsonl, line 1 is no problem"):
        compare(opened(*two))
    folder.problems("aime24").unlink()
    with pytest.raises(RunFolderError, match=r"aime24\.problems\.jsonl is missing"):
        compare(opened(*two))
