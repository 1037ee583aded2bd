"""Which folders make a figure, what they are called, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rsp_rl.analysis.condition_protocols import condition_protocols
from rsp_rl.analysis.conditions import (
    Condition,
    check_names,
    draw_name,
    open_conditions,
    position_name,
    shared_benchmarks,
)
from rsp_rl.analysis.coverage import rows_name
from rsp_rl.analysis.dials_table import dial_name
from rsp_rl.analysis.trained_or_random import method_name
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.cli import main
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.protocol import load_protocol
from tests.unit.analysis.made_conditions import make_condition

MARKS = {"gsm8k": ["++", "+-"], "math500": ["--", "-+"]}


def test_names_come_from_the_protocol(tmp_path: Path) -> None:
    texts = [
        make_condition(tmp_path / "a", MARKS),
        make_condition(tmp_path / "b", MARKS, rsp={"length": 8, "position": "infix"}),
        make_condition(tmp_path / "c", MARKS, rsp={"length": 8}, temperature=0),
        make_condition(tmp_path / "d", MARKS, rsp={"length": 8, "mode": "shared"}),
    ]
    positions = [c.name for c in open_conditions(texts, position_name)]
    assert positions == ["baseline", "infix", "suffix", "suffix"]
    draws = [c.name for c in open_conditions(texts, draw_name)]
    assert draws == [
        "baseline, sampled",
        "independent RSP, sampled",
        "independent RSP, greedy",
        "shared RSP, sampled",
    ]
    noise = {"law": "question_noise", "length": 0, "scale": 5}
    noisy = make_condition(tmp_path / "e", MARKS, rsp=noise)
    hows = (position_name, draw_name, method_name, rows_name)
    noise_names = [open_conditions([noisy], how)[0].name for how in hows]
    drawn = "independent question_noise, sampled"
    assert noise_names == ["question_noise", drawn, "question_noise", "question_noise"]
    assert dial_name(open_conditions([noisy], draw_name)[0].protocol) == "scale 5, question_noise"
    silent = make_condition(tmp_path / "f", MARKS, rsp={**noise, "scale": 0})
    for how in (position_name, method_name, rows_name):
        assert open_conditions([silent], how)[0].name == "baseline"
    assert open_conditions([texts[1]], rows_name)[0].name == "RSP"
    with pytest.raises(ConfigError, match="are both called 'suffix'; name them: NAME=DIR"):
        check_names(open_conditions(texts, position_name))
    named = open_conditions([f"first={texts[2]}", *texts[3:]], position_name)
    check_names(named)
    assert named[0].name == "first"


def test_what_is_no_finished_evaluation(tmp_path: Path) -> None:
    def opened(path: str) -> None:
        open_conditions([path], position_name)

    with pytest.raises(RunFolderError, match=r"is no evaluation \(it holds no step_N\)"):
        opened(str(tmp_path))
    text = make_condition(tmp_path / "a", MARKS)
    opened(text)
    opened(f"{text}/step_0")
    shutil.copytree(f"{text}/step_0", f"{text}/step_10")
    with pytest.raises(RunFolderError, match=r"holds 2 steps; name one of them, .*step_10"):
        opened(text)
    for name in MARKS:
        EvaluationFolder(Path(text)).step(0).metrics(name).unlink()
    with pytest.raises(RunFolderError, match="holds no finished benchmark"):
        opened(f"{text}/step_0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "models/other"}, "with model"),
        ({"temperature": 0.5}, "with temperature 1.0 and 0.5"),
        ({"question": "What is {}?"}, "different problems of gsm8k"),
    ],
)
def test_folders_that_cannot_be_compared(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    rsp = {"length": 8}
    texts = [
        make_condition(tmp_path / "a", MARKS),
        make_condition(tmp_path / "b", MARKS, rsp=rsp, **changes),
    ]
    with pytest.raises(RunFolderError, match=message):
        shared_benchmarks(open_conditions(texts, position_name))
    text = make_condition(tmp_path / "c", {"aime24": ["++"]})
    with pytest.raises(RunFolderError, match="no benchmark is finished in all of"):
        shared_benchmarks(open_conditions([texts[0], text], position_name))


def test_conditions_of_the_figures() -> None:
    base = load_protocol("tiny", ["rsp.length=8", "sampling.samples=2", "sampling.temperature=0.7"])
    positions = condition_protocols("positions", base)
    assert {name: p.rsp.length for name, p in positions.items()} == {
        "baseline": 0, "prefix": 8, "infix": 8, "suffix": 8
    }  # fmt: skip
    assert [position_name(p) for p in positions.values()] == list(positions)
    assert {p.benchmarks for p in positions.values()} == {base.benchmarks}
    passes = condition_protocols("pass-at-n", base, samples=4)
    assert [draw_name(p) for p in passes.values()] == [
        "baseline, sampled",
        "shared RSP, sampled",
        "independent RSP, greedy",
        "independent RSP, sampled",
    ]
    (samples,) = {plan.samples for p in passes.values() for plan in p.benchmarks}
    assert samples == 4
    assert len({p.fingerprint() for p in passes.values()}) == 4
    with pytest.raises(ConfigError, match=r"rsp\.length is 0"):
        condition_protocols("positions", load_protocol("tiny"))


@pytest.mark.parametrize("law", ["gaussian", "fixed", "vocab"])
def test_baselines_are_those_of_every_law(law: str) -> None:
    plain = load_protocol("tiny", ["rsp.seed=3"]).fingerprint()
    base = load_protocol("tiny", ["rsp.length=8", f"rsp.law={law}", "rsp.seed=3"])
    assert condition_protocols("positions", base)["baseline"].fingerprint() == plain
    assert replace(base, rsp=replace(base.rsp, length=0)).fingerprint() == plain


def test_noise_is_compared_with_none() -> None:
    noise = load_protocol("tiny", ["rsp.law=question_noise", "rsp.scale=5"])
    passes = condition_protocols("pass-at-n", noise)
    assert [p.rsp.enabled for p in passes.values()] == [False, True, True, True]
    plain = condition_protocols("pass-at-n", load_protocol("tiny", ["rsp.length=8"]))
    baselines = [made["baseline_sampled"].fingerprint() for made in (passes, plain)]
    assert baselines[0] == baselines[1]
    assert [draw_name(p) for p in passes.values()][:2] == [
        "baseline, sampled",
        "shared question_noise, sampled",
    ]
    for figure in ("positions", "trained-or-random"):
        with pytest.raises(ConfigError, match=rf"law=question_noise inserts nothing, and {figure}"):
            condition_protocols(figure, noise)
    silent = load_protocol("tiny", ["rsp.law=question_noise", "rsp.scale=0"])
    with pytest.raises(ConfigError, match=r"question_noise with rsp\.scale=0 adds nothing"):
        condition_protocols("pass-at-n", silent)


def test_command_makes_what_a_figure_reads(answered: dict[str, Condition], tmp_path: Path) -> None:
    assert list(answered) == ["baseline", "prefix", "infix", "suffix"]
    folders = [str(condition.root) for condition in answered.values()]
    assert main(["analyze", "positions", *folders, "--output", str(tmp_path)]) == 0
    assert (tmp_path / "positions.png").is_file()


@pytest.mark.parametrize(
    ("analysis", "message"),
    [("attention", "take no attention of their own"), ("lengths", "has no L to choose")],
)
def test_analyses_of_soft_prompts_refuse_noise_on_the_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], analysis: str, message: str
) -> None:
    noise = {"law": "question_noise", "length": 0, "scale": 5}
    noisy = make_condition(tmp_path / "a", MARKS, rsp=noise)
    assert main(["analyze", analysis, noisy, "--output", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
