"""`rsp-rl reproduce` on a random tiny model: what fails, what is kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsp_rl.analysis import position_table
from rsp_rl.cli import main
from tests.digit_model import make_digit_model
from tests.unit.evaluation.made_runs import make_evaluation


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_model(tmp_path_factory.mktemp("model") / "tiny")


def reproduce(model: Path, output: Path, section: str, *arguments: str) -> int:
    command = ["reproduce", "rsp.length=4", "benchmarks.arithmetic.limit=4", "max_tokens=12"]
    command += ["--section", section, "--model", str(model), "--protocol", "tiny"]
    command += ["--engine", "huggingface", "--dtype", "float32", "--output", str(output)]
    return main([*command, *arguments])


def files(folder: Path) -> dict[Path, int]:
    """What an evaluation or analysis wrote, with the time of writing."""
    kept = [f for f in folder.rglob("*.*") if f.parent != folder and not f.name.startswith(".")]
    return {file: file.stat().st_mtime_ns for file in kept if file.is_file()}


def test_a_failed_part_leaves_the_others_and_can_be_mended(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--samples", "2", "--trajectories", "3", "--embedder")
    assert reproduce(model, tmp_path, "4.4", *few, "/nowhere/embedder") == 1
    errors = capsys.readouterr().err
    assert "error: Table 4: semantic diversity: --embedder /nowhere/embedder" in errors
    report = (tmp_path / "report.md").read_text()
    assert "**Failed:** `` --embedder /nowhere/embedder cannot be loaded" in report
    assert "independent RSP, sampled" in report  # of Figure 4
    made = files(tmp_path)
    assert not any(file.parent.name == "diversity" for file in made)

    assert reproduce(model, tmp_path, "4.4", *few, "ngrams") == 0
    assert "Failed" not in (tmp_path / "report.md").read_text()
    after = files(tmp_path)
    assert {file: after[file] for file in made} == made
    assert {file.parent.name for file in after.keys() - made.keys()} == {"diversity"}


def test_a_broken_analysis_is_one_of_several(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only errors that we know: running out of memory must not lose the rest."""

    def out_of_memory(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(position_table, "analyse", out_of_memory)
    assert reproduce(model, tmp_path, "4.2", "--lengths", "4,6") == 1
    report = (tmp_path / "report.md").read_text()
    assert "**Failed:** `` MemoryError: no room ``" in report
    assert (tmp_path / "analysis" / "lengths" / "lengths.csv").is_file()


def test_an_analysis_follows_its_evaluations(model: Path, tmp_path: Path) -> None:
    assert reproduce(model, tmp_path, "4.2", "--lengths", "4") == 0
    table = tmp_path / "analysis" / "positions" / "positions.csv"
    before = table.read_text()
    (metrics,) = tmp_path.glob("evaluations/baseline*/step_0/arithmetic.metrics.json")
    metrics.write_text(metrics.read_text() + " ")  # as grading anew might
    table.unlink()
    assert reproduce(model, tmp_path, "4.2", "--lengths", "4") == 0
    assert table.read_text() == before


def test_one_folder_one_model(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"model": "another", "weights": "0"}))
    assert reproduce(model, tmp_path, "4.3") == 1
    assert "holds the reproduction on another model (another)" in capsys.readouterr().err


def test_training_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, chance in (("plain", 0.4), ("rsp", 0.5)):
        make_evaluation(tmp_path / name, {0: 0.2, 10: chance})
    for manifest in tmp_path.glob("*/evaluation/made_up/step_*/how.json"):
        how = json.loads(manifest.read_text())
        asked = {"gsm8k": {"limit": 12}, "math500": {"limit": 10}, "aime24": {"limit": 4}}
        how["protocol"] |= {"max_tokens": 9, "benchmarks": asked}
        manifest.write_text(json.dumps(how))
    command = ["reproduce", "--section", "4.5", "--model", "Qwen/Qwen2.5-Math-7B", "--output"]
    command += [str(tmp_path / "out")]
    assert main(command) == 1
    assert "recipes/dapo_rsp_qwen7b.sh" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    runs = [f"DAPO={tmp_path / 'plain'}", f"DAPO+RSP={tmp_path / 'rsp'}"]
    assert main([*command, "--runs", *runs]) == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert (
        "| Table 5 | Qwen2.5-Math-7B | 20 | math500 | DAPO+RSP | accuracy at the peak | 78.60% |"
        in report
    )
    assert "only 10 problems of math500" in report
    # An average of other benchmarks is another quantity.
    (row,) = [line for line in report.splitlines() if "| DAPO | headline at step 10 |" in line]
    assert row.endswith("| 46.40% | – | not in this run |")
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()


def test_bad_arguments(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(model, tmp_path / "out", "4.2,4.6") == 1
    assert "--section 4.6 is unknown; use one of 4.2, 4.3, 4.4, 4.5" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        reproduce(model, tmp_path / "out", "4.2", "--lengths", "10,x")
    assert "'10,x' is no list of lengths" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_table_1_beside_the_others(model: Path, tmp_path: Path) -> None:
    ltpo = ("--comparator", "ltpo", "steps=2", "rsp.length=3")
    assert reproduce(model, tmp_path, "4.2", "--lengths", "4", *ltpo) == 0
    report = (tmp_path / "report.md").read_text()
    table = report[report.index("Table 1: random soft prompts beside trained ones") :]
    for method in ("baseline", "random", "ltpo"):
        assert f"| {method} |" in table
    names = {folder.name.rpartition("-")[0] for folder in (tmp_path / "evaluations").iterdir()}
    assert {"ltpo_L3_arithmetic", "suffix_L4_arithmetic", "baseline_arithmetic"} < names
