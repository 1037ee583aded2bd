"""Position table, lengths, pass@N and coverage, on a handful of problems counted by hand."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from rsp_rl.analysis.conditions import draw_name, open_conditions, position_name
from rsp_rl.analysis.coverage import count, coverage
from rsp_rl.analysis.length_table import length_choices
from rsp_rl.analysis.pass_at_n import pass_curves
from rsp_rl.analysis.position_table import position_table
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.cli import main
from rsp_rl.evaluation.comparison import Estimate
from tests.unit.analysis.made_conditions import make_condition

RSP = {"length": 8}


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


# Positions.


def test_position_table_by_hand(tmp_path: Path) -> None:
    texts = [
        make_condition(
            tmp_path / "s", {"gsm8k": ["+", "+", "+", "-"], "amc23": ["-", "-"]}, rsp=RSP
        ),
        make_condition(tmp_path / "b", {"gsm8k": ["+", "-", "-", "-"], "amc23": ["+", "-"]}),
    ]
    rows = position_table(open_conditions(texts, position_name))["tiny"]
    assert list(rows) == ["baseline", "suffix"]
    baseline, suffix = rows.values()
    assert [cell.accuracy.value for cell in baseline.values()] == [0.25, 0.5, 0.375]
    assert [cell.accuracy.value for cell in suffix.values()] == [0.75, 0, 0.375]
    assert list(suffix) == ["gsm8k", "amc23", "mean"]
    assert all(cell.difference is None for cell in baseline.values())
    # Paired: two of four problems are gained and none lost, so never a resample below 0; of two
    # problems one is lost, and a resample holds it never, once or twice.
    assert suffix["gsm8k"].difference == Estimate(0.5, 0, 1)
    assert suffix["amc23"].difference == Estimate(-0.5, -1, 0)
    assert suffix["mean"].difference.value == 0


def test_folders_of_a_position_are_put_together(tmp_path: Path) -> None:
    """L by model and benchmark, as in the paper's Table 7; noise on the question has no one L."""
    noise = {"law": "question_noise", "length": 0, "scale": 5}
    texts = [
        make_condition(tmp_path / "b1", {"gsm8k": ["+", "-"]}),
        make_condition(tmp_path / "b2", {"amc23": ["-", "-"]}),
        make_condition(tmp_path / "s1", {"gsm8k": ["+", "+"]}, rsp={"length": 10}),
        make_condition(tmp_path / "s2", {"amc23": ["-", "+"]}, rsp={"length": 20}),
        make_condition(tmp_path / "o", {"gsm8k": ["-", "-"]}, model="models/other"),
        make_condition(tmp_path / "n", {"gsm8k": ["+", "-"], "amc23": ["-", "-"]}, rsp=noise),
    ]
    output = tmp_path / "out"
    assert main(["analyze", "positions", *texts, "--output", str(output)]) == 0
    rows = rows_of(output / "positions.csv")
    lengths = {(r["model"], r["position"], r["benchmark"]): r["length"] for r in rows}
    assert lengths["tiny", "suffix", "gsm8k"] == "10"
    assert lengths["tiny", "suffix", "amc23"] == "20"
    assert lengths["tiny", "baseline", "gsm8k"] == "0"
    assert lengths["tiny", "question_noise", "gsm8k"] == ""
    assert {r["model"] for r in rows} == {"tiny", "other"}
    assert "| suffix − baseline | +50.00 [" in (output / "positions.md").read_text()
    assert (output / "positions.png").read_bytes().startswith(b"\x89PNG")


def test_position_tables_that_cannot_be(tmp_path: Path) -> None:
    b = make_condition(tmp_path / "b", {"gsm8k": ["+", "-"]})
    s = make_condition(tmp_path / "s", {"gsm8k": ["+", "-"]}, rsp=RSP)
    more = make_condition(tmp_path / "m", {"gsm8k": ["+", "-"], "amc23": ["+"]}, rsp=RSP)

    def table(*texts: str) -> None:
        position_table(open_conditions(texts, position_name))

    with pytest.raises(RunFolderError, match="no folder holds the baseline of tiny"):
        table(s)
    with pytest.raises(RunFolderError, match="both hold gsm8k of tiny, suffix"):
        table(b, s, more)
    with pytest.raises(RunFolderError, match="amc23 is finished in only one of baseline and suff"):
        table(b, more)


# Lengths.


def test_lengths_by_hand(tmp_path: Path) -> None:
    """L = 20 is right on everything, L = 10 on nothing; benchmarks in folders of their own."""
    folders = [
        make_condition(
            tmp_path / f"{benchmark}{length}", {benchmark: marks}, rsp={"length": length}
        )
        for benchmark in ("gsm8k", "amc23")
        for length, marks in ((10, ["-"] * 4), (20, ["+"] * 4))
    ]
    output = tmp_path / "out"
    assert main(["analyze", "lengths", *folders, "--output", str(output)]) == 0
    chosen = [row for row in rows_of(output / "lengths.csv") if row["chosen"] == "1"]
    assert [(row["benchmark"], row["length"], row["held_out"]) for row in chosen] == [
        ("gsm8k", "20", "1.0"),
        ("amc23", "20", "1.0"),
    ]
    text = (output / "lengths.md").read_text()
    assert "| gsm8k | 0.00 | 100.00 | 20 | 100.00 [100.00, 100.00] | 2 |" in text


def test_lengths_that_cannot_be_chosen_among(tmp_path: Path) -> None:
    def folder(name: str, benchmark: str = "gsm8k", **rsp: object) -> str:
        return make_condition(tmp_path / name, {benchmark: ["+", "-"]}, rsp=rsp or None)

    ten = folder("ten", length=10)
    for others, message in (
        ([folder("again", length=10)], "both hold gsm8k with L = 10"),
        ([folder("none")], "has no soft prompts"),
        ([folder("prefix", length=20, position="prefix")], "one position, not for prefix, suffix"),
        ([folder("amc", "amc23", length=20)], "with the same lengths"),
    ):
        with pytest.raises(ConfigError, match=message):
            length_choices(open_conditions([ten, *others], position_name))


# Pass@N.


def test_pass_at_n_by_counting_subsets(tmp_path: Path) -> None:
    marks = {"a": ["+---", "++--", "----"], "b": ["+++-", "++++", "--+-"]}
    texts = [
        make_condition(tmp_path / "a", {"aime24": marks["a"]}),
        make_condition(tmp_path / "b", {"aime24": marks["b"]}, rsp=RSP),
        make_condition(tmp_path / "c", {"aime24": marks["b"]}, rsp=RSP, temperature=0),
    ]
    curves = pass_curves(open_conditions(texts, draw_name))["aime24"]
    assert len(curves) == 3

    def subsets(rows: list[str], n: int) -> float:
        """The share of all choices of n samples that hold a right one."""
        return np.mean([np.mean(["+" in chosen for chosen in combinations(r, n)]) for r in rows])

    for name, key in (("baseline, sampled", "a"), ("independent RSP, sampled", "b")):
        found = [cell.accuracy.value for cell in curves[name]]
        assert found == pytest.approx([subsets(marks[key], n) for n in (1, 2, 3, 4)])
    last = curves["independent RSP, sampled"][-1]
    assert last.difference.value == pytest.approx(1 / 3)
    assert last.difference.low == 0  # paired: no problem is lost
    assert last.accuracy == Estimate(1, 1, 1)


def test_pass_at_n_of_the_half_that_did_not_choose(tmp_path: Path) -> None:
    """Kept: the second problem, by the baseline's first half, and the third, by the other's."""
    texts = [
        make_condition(tmp_path / "b", {"aime24": ["--++", "+---", "--+-"]}),
        make_condition(tmp_path / "i", {"aime24": ["--++", "--++", "-+-+"]}, rsp=RSP),
    ]
    conditions = open_conditions(texts, draw_name)
    baseline, drawn = pass_curves(conditions, held_out_half=True)["aime24"].values()
    assert [cell.accuracy.value for cell in baseline] == [0.25, 0.5]
    assert [cell.accuracy.value for cell in drawn] == [0.75, 1.0]
    command = ["analyze", "pass-at-n", *texts, "--held-out-half", "--output", str(tmp_path / "o")]
    assert main(command) == 0
    assert "2 of 3 problems" in (tmp_path / "o" / "pass_at_n.md").read_text()
    unsolved = [make_condition(tmp_path / "u", {"aime24": ["--++", "---+"]})]
    with pytest.raises(RunFolderError, match="no condition solves a problem"):
        pass_curves(open_conditions(unsolved, draw_name), held_out_half=True)
    single = [make_condition(tmp_path / "one", {"aime24": ["+"]})]
    with pytest.raises(RunFolderError, match="no halves"):
        pass_curves(open_conditions(single, draw_name), held_out_half=True)


def test_pass_at_n_command(tmp_path: Path) -> None:
    texts = [
        make_condition(tmp_path / "a", {"aime24": ["+---", "++--"]}),
        make_condition(tmp_path / "b", {"aime24": ["+---", "++--"]}, rsp=RSP),
    ]
    output = tmp_path / "out"
    assert main(["analyze", "pass-at-n", *texts, "--output", str(output)]) == 0
    rows = rows_of(output / "pass_at_n.csv")
    assert [row["n"] for row in rows] == ["1", "2", "3", "4"] * 2
    assert [float(row["difference"]) for row in rows[4:]] == [0] * 4
    assert "N = 4" in (output / "pass_at_n.md").read_text()
    spreads = rows_of(output / "single_samples.csv")
    assert [row["condition"] for row in spreads] == [
        "baseline, sampled",
        "independent RSP, sampled",
    ]
    # Of both problems right: two first samples, one second one, and then none.
    by_hand = np.std([1, 0.5, 0, 0], ddof=1)
    for row in spreads:
        assert (row["benchmark"], row["samples"]) == ("aime24", "4")
        assert float(row["standard_deviation"]) == pytest.approx(by_hand)
    fewer = make_condition(tmp_path / "c", {"aime24": ["+-", "++"]}, rsp=RSP, temperature=0)
    with pytest.raises(RunFolderError, match="with samples 4 and 2"):
        pass_curves(open_conditions([texts[0], fewer], draw_name))


# Coverage.


def test_coverage_by_hand(tmp_path: Path) -> None:
    texts = [
        make_condition(tmp_path / "a", {"aime24": ["+-", "--", "++", "--", "-+"]}),
        make_condition(tmp_path / "b", {"aime24": ["++", "-+", "--", "--", "+-"]}, rsp=RSP),
    ]
    problems = coverage(*open_conditions(texts, position_name))
    assert [p.outcome for p in problems] == ["both", "only second", "only first", "neither", "both"]
    assert [p.right for p in problems] == [(1, 2), (0, 1), (2, 0), (0, 0), (1, 1)]
    assert count(problems) == {
        "aime24": {"both": 2, "only first": 1, "only second": 1, "neither": 1}
    }


def test_coverage_page_shows_output_as_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> & so on"
    texts = [
        make_condition(tmp_path / "a", {"aime24": ["--", "++"]}, output=hostile),
        make_condition(
            tmp_path / "b", {"aime24": ["-+", "++"]}, rsp=RSP, output="x" * 5_000, extracted="<b>"
        ),
    ]
    output = tmp_path / "out"
    assert main(["analyze", "coverage", *texts, "--output", str(output)]) == 0
    page = (output / "coverage.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; so on" in page
    assert "<code>&lt;b&gt;</code> · sample 1" in page  # the right one of the two
    assert "2,600 characters left out" in page
    assert page.count("<details>") == 1
    assert "default-src 'none'" in page
    assert [row["outcome"] for row in rows_of(output / "coverage.csv")] == ["only second", "both"]
    assert "| aime24 | 1 | 0 | 1 | 0 | 2 |" in (output / "coverage.md").read_text()
    assert (output / "coverage.png").is_file()
