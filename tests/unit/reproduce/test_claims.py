"""The paper's claims: which interval answers what, from files as the analyses write them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rsp_rl.analysis import distribution_changes
from rsp_rl.analysis.distribution_changes import EARLY, FADED, LATE, changes, early_and_late
from rsp_rl.analysis.distributions import METRICS
from rsp_rl.evaluation.comparison import Estimate
from rsp_rl.reproduce.claims import NO, UNDECIDED, YES, Answer, answers, verdict


@pytest.mark.parametrize(
    ("low", "high", "sign", "limit", "answer"),
    [
        (0.1, 0.2, 1, 0, YES),
        (0.1, 0.2, -1, 0, NO),
        (-0.2, -0.1, -1, 0, YES),
        (-0.1, 0.2, 1, 0, UNDECIDED),
        (0.5, 0.7, -1, 1, YES),
        (0.9, 1.1, -1, 1, UNDECIDED),
        (0.0, 0.0, 1, 0, UNDECIDED),
        (math.nan, math.nan, 1, 0, UNDECIDED),
    ],
)
def test_verdicts(low: float, high: float, sign: float, limit: float, answer: str) -> None:
    assert verdict(low, high, sign, limit) == answer


def test_changes_are_paired_by_problem() -> None:
    """Problems differ by 100, conditions by 1 early and nothing late."""
    baseline, drawn = {}, {}
    for number in range(30):
        level = 100.0 * number
        tokens = np.full((3, 40), level)
        baseline[str(number)] = early_and_late([tokens], [2])
        raised = tokens.copy()
        raised[:, :2] += 1
        drawn[str(number)] = early_and_late([raised, raised], [2, 2])
    drawn["of the condition alone"] = drawn["0"]
    found = changes(drawn, baseline)
    assert [estimate.value for estimate in found[EARLY]] == [1] * 3
    assert all((e.low, e.high) == (1, 1) for e in found[EARLY])
    assert [estimate.value for estimate in found[LATE]] == [0] * 3
    assert [estimate.value for estimate in found[FADED]] == [-0.25] * 3


def _changes(folder: Path, early: Estimate, faded: Estimate) -> None:
    parts = {EARLY: [early] * 3, LATE: [Estimate(0, 0, 0)] * 3, FADED: [faded] * 3}
    folder.mkdir()
    text = distribution_changes.to_csv({"gsm8k": {"suffix": parts}}, METRICS)
    (folder / "changes.csv").write_text(text)


def _by_words(found: list[Answer]) -> dict[str, str]:
    return {answer.question: answer.answer for answer in found}


def test_distributions(tmp_path: Path) -> None:
    _changes(tmp_path / "a", Estimate(0.2, 0.1, 0.3), Estimate(-0.05, -0.08, -0.02))
    found = _by_words(answers({"distributions": tmp_path / "a"}))
    assert [found[q] for q in found if "early-stage … entropy↑" in q] == [YES]
    assert [found[q] for q in found if "early-stage … top-1 probability↓" in q] == [NO]
    assert [found[q] for q in found if "return to baseline" in q] == [YES] * 3

    _changes(tmp_path / "b", Estimate(0.2, -0.1, 0.3), Estimate(-0.05, -0.08, -0.02))
    found = _by_words(answers({"distributions": tmp_path / "b"}))
    # Nothing moved for sure, so nothing can have returned.
    assert set(found.values()) == {UNDECIDED}

    _changes(tmp_path / "c", Estimate(-0.2, -0.3, -0.1), Estimate(-0.1, -0.2, -0.05))
    found = _by_words(answers({"distributions": tmp_path / "c"}))
    assert [found[q] for q in found if "return to baseline" in q] == [NO] * 3


def test_attention(tmp_path: Path) -> None:
    check = {"checked": 1000, "violations": 0, "worst_slack": 0.01}
    decay = {"ratio": 0.5, "low": 0.4, "high": 0.6}
    content = {"model": "m", "length": 20, "gsm8k": {"theorem_1": check, "decay": decay}}
    (tmp_path / "attention.json").write_text(json.dumps(content))
    assert [answer.answer for answer in answers({"attention": tmp_path})] == [YES, YES]
    check["violations"], decay["high"] = 1, 1.2
    (tmp_path / "attention.json").write_text(json.dumps(content))
    assert [answer.answer for answer in answers({"attention": tmp_path})] == [NO, UNDECIDED]


def test_first_token(tmp_path: Path) -> None:
    lines = ["benchmark,row,metric,value,low,high"]
    for row, spearman, mass, js in (("τ = 2", 1, 0.05, 0.06), ("τ = 3", 1, 0.3, 0.2)):
        found = {"spearman": spearman, "mass_outside_top10": mass, "js_divergence": js}
        lines += [f"gsm8k,{row},{name},{v},{v},{v}" for name, v in found.items()]
    lines += ["gsm8k,suffix,spearman,0.7,0.6,0.8", "gsm8k,suffix,mass_outside_top10,0.2,0.1,0.25"]
    lines += ["gsm8k,suffix,js_divergence,0.3,0.25,0.35"]
    (tmp_path / "first_token.csv").write_text("\n".join(lines) + "\n")
    assert [a.answer for a in answers({"first_token": tmp_path})] == [YES, YES, NO]


def test_diversity_and_pass_at_n(tmp_path: Path) -> None:
    (tmp_path / "diversity.csv").write_text(
        "benchmark,condition,measure,mean,low,high\n"
        "gsm8k,baseline,pairwise,0.06,0.05,0.07\n"
        "gsm8k,baseline,inter-cluster,0.02,0.01,0.03\n"
        "gsm8k,RSP,pairwise,0.09,0.08,0.1\n"
        "gsm8k,RSP,inter-cluster,0.03,0.02,0.04\n"
    )
    (tmp_path / "pass_at_n.csv").write_text(
        "benchmark,condition,n,pass,low,high,difference,difference_low,difference_high\n"
        '"gsm8k","baseline, sampled",4,0.5,0.4,0.6,,,\n'
        '"gsm8k","independent RSP, sampled",2,0.5,0.4,0.6,-0.1,-0.2,-0.1\n'
        '"gsm8k","independent RSP, sampled",4,0.5,0.4,0.6,0.1,0.05,0.2\n'
        '"gsm8k","shared RSP, sampled",4,0.5,0.4,0.6,0.1,0.05,0.2\n'
        '"gsm8k","independent RSP, greedy",4,0.5,0.4,0.6,0.1,0.05,0.2\n'
    )
    both = {"diversity": tmp_path, "pass_at_n": tmp_path}
    found = [(answer.condition, answer.answer) for answer in answers(both)]
    assert found == [
        ("RSP", YES),
        ("RSP", UNDECIDED),
        ("independent RSP, sampled", YES),
        ("shared RSP, sampled", NO),
    ]


_DIFFERENCES = "value,low,high,difference,difference_low,difference_high"


def test_dials_and_format(tmp_path: Path) -> None:
    head = f"benchmark,condition,measure,{_DIFFERENCES}\n"
    greedy, sampled = "right, greedy", "right, sampled"
    (tmp_path / "dials.csv").write_text(
        f"{head}"
        f'sums,baseline,"{greedy}",0.5,0.4,0.6,,,\n'
        f'sums,L = 5,"{greedy}",0.5,0.4,0.6,0.01,-0.04,0.04\n'
        f'sums,L = 40,"{greedy}",0.5,0.4,0.6,-0.2,-0.3,-0.1\n'
        f'sums,"L = 5, vocab","{greedy}",0.5,0.4,0.6,-0.2,-0.3,-0.1\n'
        f'sums,L = 5,"{sampled}",0.5,0.4,0.6,-0.2,-0.3,-0.1\n'
    )
    (tmp_path / "format.csv").write_text(
        f"{head}"
        f'sums,"chat, baseline","{greedy}",0.5,0.4,0.6,,,\n'
        f'sums,"chat, L = 5","{greedy}",0.5,0.4,0.6,0.0,-0.1,0.1\n'
        f'sums,"raw, baseline","{greedy}",0.3,0.2,0.4,-0.2,-0.3,-0.1\n'
        f'sums,"raw, L = 5","{greedy}",0.5,0.4,0.6,0.2,0.1,0.3\n'
        f'sums,"raw, L = 5, prefix","{greedy}",0.1,0,0.2,-0.2,-0.3,-0.1\n'
    )
    found = [(a.condition, a.answer) for a in answers({"dials": tmp_path, "format": tmp_path})]
    assert found == [
        ("L = 5", YES),
        ("L = 40", NO),
        ("chat, L = 5", UNDECIDED),
        ("raw, L = 5", YES),
        ("raw, L = 5, prefix", NO),
    ]


def test_training(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_text(
        f"measure,run,seeds,{_DIFFERENCES}\n"
        "held out,DAPO,3,0.5,0.4,0.6,,,\n"
        "held out,DAPO+RSP,3,0.6,0.5,0.7,0.1,0.05,0.15\n"
        "pass@1,DAPO+RSP,3,0.6,0.5,0.7,0.1,0.05,0.15\n"
        "pass@4,DAPO+RSP,3,0.6,0.5,0.7,-0.1,-0.15,-0.05\n"
        '"entropy, first half",DAPO+RSP,3,2,1,3,0.1,0.05,0.15\n'
        '"entropy, second half",DAPO+RSP,3,2,1,3,0.1,0.05,0.15\n'
        '"reward, first half",DAPO+RSP,3,0.6,0.5,0.7,-0.1,-0.3,0.1\n'
    )
    found = [(a.measured.split(",")[0], a.answer) for a in answers({"training": tmp_path})]
    assert found == [("held out", YES), ("pass@4", NO), ("entropy", YES), ("reward", UNDECIDED)]


def test_what_was_not_measured_is_not_answered() -> None:
    assert answers({}) == []
