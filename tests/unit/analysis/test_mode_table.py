"""Modes side by side: by hand from made-up answers, and the six modes of a paper by one command."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rsp_rl.analysis.mode_table import analyse
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.cli import main
from rsp_rl.commands.evaluate import _tabulate
from rsp_rl.evaluation.compare import open_run
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.modes import Mode
from rsp_rl.evaluation.samples import read_samples
from tests.unit.analysis.made_conditions import make_condition


def rows_of(file: Path) -> dict[tuple[str, str], dict[str, str]]:
    with file.open() as stream:
        return {(row["condition"], row["measure"]): row for row in csv.DictReader(stream)}


def test_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, trained = (tmp_path / name / "evaluation" / "mine" for name in ("base", "trained"))
    make_condition(base / "greedy", {"gsm8k": ["+", "-", "-", "-"]}, temperature=0.0)
    make_condition(base / "sampled", {"gsm8k": ["++-", "---", "---", "+--"]})
    make_condition(trained / "greedy", {"gsm8k": list("++--")}, temperature=0.0, model="models/b")
    make_condition(trained / "sampled", {"gsm8k": ["+++", "+--", "---", "+--"]}, model="models/b")
    analyse([str(base), f"soft={trained}"], tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "modes.csv")
    names = ("base", "soft")
    found = {
        (mode, name, measure): float(rows[f"{mode}, {name}, step 0", measure]["value"])
        for mode in ("greedy", "sampled")
        for name in names
        for measure in ("pass@1", "pass@3")
        if (f"{mode}, {name}, step 0", measure) in rows
    }
    assert found == pytest.approx(
        {
            ("greedy", "base", "pass@1"): 1 / 4,
            ("greedy", "soft", "pass@1"): 2 / 4,
            ("sampled", "base", "pass@1"): 3 / 12,
            ("sampled", "base", "pass@3"): 2 / 4,
            ("sampled", "soft", "pass@1"): 5 / 12,
            ("sampled", "soft", "pass@3"): 3 / 4,
        }
    )
    # Of the same mode, at the first folder.
    soft = rows["sampled, soft, step 0", "pass@3"]
    assert float(soft["difference"]) == pytest.approx(1 / 4)
    assert float(soft["difference_low"]) == 0.0
    assert rows["sampled, base, step 0", "pass@3"]["difference"] == ""
    page = (tmp_path / "out" / "modes.md").read_text()
    assert page in capsys.readouterr().out
    lines = [line for line in page.splitlines() if line.startswith(("| greedy", "| sampled"))]
    assert [line.split(" | ")[0] for line in lines] == [
        "| greedy, base, step 0",
        "| greedy, soft, step 0",
        "| sampled, base, step 0",
        "| sampled, soft, step 0",
    ]
    assert [line.split(" | ")[2] == "–" for line in lines] == [True, True, False, False]
    assert "has no pass@3" in page
    assert (tmp_path / "out" / "modes.png").is_file()


def test_a_base_model_of_two_runs_is_there_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_condition(tmp_path / name / "one", {"gsm8k": ["+", "-"]})
        trained = tmp_path / name / "trained"
        make_condition(trained, {"gsm8k": ["+", "+"]}, model=f"models/{name}")
        (trained / "step_0").rename(tmp_path / name / "one" / "step_5")
        shutil.rmtree(trained)
    analyse([str(tmp_path / name) for name in ("a", "b")], tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "modes.csv")
    names = dict.fromkeys(name for name, _ in rows)
    assert [*names] == ["one, step 0", "one, a, step 5", "one, b, step 5"]
    assert float(rows["one, b, step 5", "pass@1"]["difference"]) == 0.5


def test_a_runs_name_may_hold_an_equals_sign(tmp_path: Path) -> None:
    """As those of a sweep over settings do."""
    for name in ("lr=1e-5", "lr=1e-6"):
        make_condition(tmp_path / name / "one", {"gsm8k": ["+", "-"]}, model=f"models/{name}")
    analyse([str(tmp_path / f"lr=1e-{n}") for n in (5, 6)], tmp_path / "out")
    names = dict.fromkeys(name for name, _ in rows_of(tmp_path / "out" / "modes.csv"))
    assert [*names] == ["one, lr=1e-5, step 0", "one, lr=1e-6, step 0"]


def test_what_has_no_modes_or_other_problems_is_refused(tmp_path: Path) -> None:
    plain = make_condition(tmp_path / "plain", {"gsm8k": ["+"]})
    with pytest.raises(RunFolderError, match="no finished evaluation of a protocol with modes"):
        analyse([plain], tmp_path / "out")
    make_condition(tmp_path / "a" / "one", {"gsm8k": ["+"]})
    make_condition(tmp_path / "a" / "two", {"gsm8k": ["+"]}, question="Another {}?")
    with pytest.raises(RunFolderError, match="different problems"):
        analyse([str(tmp_path / "a")], tmp_path / "out")


@pytest.mark.parametrize(
    ("step", "other", "said"),
    [
        (0, {"temperature": 0.5}, "temperature 1.0 and 0.5"),
        (5, {"temperature": 0.5}, "temperature 1.0 and 0.5"),
        (5, {"law": {"name": "soft", "sigma": 0.1}}, "law {.*0.33.*} and {.*0.1"),
        (5, {"law": None}, "law {.*0.33.*} and None"),
        (5, {"stop": ["x"]}, r"stop \[\] and \['x'\]"),
        (5, {"rsp": {"length": 3}}, "rsp None and {'length': 3"),
    ],
)
def test_one_mode_asked_in_two_ways_is_refused(
    step: int, other: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """Also of a base model, which would be left out as one that is there already."""
    for name in ("a", "b"):
        make_condition(tmp_path / name / "one", {"gsm8k": ["+-", "--"]})
        manifest = tmp_path / name / "one" / "step_0" / "how.json"
        how = json.loads(manifest.read_text())
        how["protocol"]["law"] = {"name": "soft", "sigma": 0.33}
        if name == "b":
            own = dict(other)
            if (temperature := own.pop("temperature", None)) is not None:
                how["protocol"]["benchmarks"]["gsm8k"]["temperature"] = temperature
            how["protocol"] |= own
        manifest.write_text(json.dumps(how))
    if step:
        (tmp_path / "b" / "one" / "step_0").rename(tmp_path / "b" / "one" / f"step_{step}")
    with pytest.raises(RunFolderError, match=f"both of mode one, but gsm8k was asked with {said}"):
        analyse([str(tmp_path / name) for name in ("a", "b")], tmp_path / "out")


def test_steps_that_cannot_stand_together_end_no_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a protocol's file that was changed between two steps."""
    root = tmp_path / "mine"
    make_condition(root / "one", {"gsm8k": ["+-", "--"]})
    (root / "one" / "step_0").rename(root / "one" / "step_5")
    make_condition(root / "one", {"gsm8k": ["+-", "--"]}, temperature=0.5)
    _tabulate(root, [Mode("one", None, EvaluationFolder(root / "one"))])
    said = " ".join(capsys.readouterr().err.split())
    assert "warning: no table of modes: " in said
    assert "gsm8k was asked with temperature 0.5 and 1.0" in said


SIX = [
    *(f"{kind}_{how}" for kind in ("fuzzy", "hard", "soft") for how in ("greedy", "sampled")),
]


def test_six_modes_by_one_command(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut off and taken up again, too; the table of both is the same."""
    root = tmp_path / "six"
    command = ["eval", str(model), "--protocol", "soft_tokens", "--output", str(root)]
    command += ["template=plain-chat", "benchmarks=[arithmetic]", "headline=[arithmetic]"]
    command += ["benchmarks.arithmetic.limit=3", "sampling.samples=3", "max_tokens=30"]
    command += ["law.max_thoughts=5", "law.on_cut='7'", "law.end_text='99'", "law.on_end='4'"]
    command += ["--engine", "huggingface", "--dtype", "float32", "--max-num-seqs", "1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    rows = rows_of(root / "modes.csv")
    for mode in SIX:
        samples = read_samples(root / mode / "step_0" / "arithmetic.samples.jsonl")
        drawn = mode.endswith("sampled")
        assert len(samples) == (9 if drawn else 3)
        assert {sample["law"] for sample in samples} == {
            "token" if mode.startswith("hard") else mode.partition("_")[0]
        }
        assert ((f"{mode}, step 0", "pass@3") in rows) == drawn
        assert ((f"{mode}, step 0", "thoughts") in rows) != mode.startswith("hard")
        assert f"| {mode}, step 0 |" in said
    # Thoughts of one position without noise are the likeliest token, whichever law says so.
    outputs = {
        mode: [
            (sample["problem"], sample["output"])
            for sample in read_samples(root / mode / "step_0" / "arithmetic.samples.jsonl")
        ]
        for mode in SIX
    }
    assert outputs["fuzzy_greedy"] == outputs["hard_greedy"]
    assert len(dict.fromkeys(outputs["soft_sampled"])) > 3
    before = {file: file.read_bytes() for file in root.rglob("*.samples.jsonl")}
    table = (root / "modes.csv").read_bytes()
    step = root / "soft_sampled" / "step_0"
    (step / "arithmetic.metrics.json").unlink()
    samples = step / "arithmetic.samples.jsonl"
    samples.write_bytes(b"".join(before[samples].splitlines(keepends=True)[:4]) + b'{"cut')
    assert main([*command, "modes=[soft_sampled]"]) == 0
    assert {file: file.read_bytes() for file in before} == before
    assert (root / "modes.csv").read_bytes() == table
    # Graded anew, all modes at once; and one mode beside itself in another run.
    assert main(["eval", "--rescore", str(root)]) == 0
    assert capsys.readouterr().out.count("0 verdicts changed") == len(SIX)
    assert (root / "modes.csv").read_bytes() == table
    run = tmp_path / "run" / "evaluation"
    run.mkdir(parents=True)
    root.rename(run / "six")
    with pytest.raises(ConfigError, match=r"several evaluations .*'six/fuzzy_greedy'"):
        open_run(str(run.parent))
    assert open_run(str(run.parent), "six/soft_sampled").headline == {0: 0.0}
