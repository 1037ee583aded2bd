"""The recipe of CCOT: the paper's settings by value, and its data."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from rsp_rl.data.step_problems import load_step_problems
from tests.unit.recipes.test_recipes import SHOW_ARGUMENTS, _run

NAME = "ccot_gsm8k_llama7b"

#: Sections 4 and 5.1 of arXiv 2412.13171.
PAPER = {
    "--model": "meta-llama/Llama-2-7b-chat-hf",
    "--generator-rank": "128",
    "--decoder-rank": "64",
    "--layer": "15",
    "--selection": "even",
    "--longest-chain": "200",
    "--ratio": "0.1",
}

ROW = {"question": "How many?", "answer": "He had 3*4 = <<3*4=12>>12.\nOne more: 13.\n#### 13"}


def arguments(*more: str, **variables: str) -> list[str]:
    """What the recipe gives `rsp_rl.cli` with its data there."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "bin" / "python"
        python.parent.mkdir()
        python.write_text(SHOW_ARGUMENTS)
        python.chmod(0o755)
        (Path(folder) / "train.jsonl").touch()
        done = _run(NAME, *more, VENV=folder, DATA_DIR=folder, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize(("option", "value"), PAPER.items())
def test_the_papers_settings(option: str, value: str) -> None:
    words = arguments()
    assert words[:6] == ["-m", "rsp_rl.cli", "latent", "ccot", "train", "--dry-run"]
    assert words[words.index(option) + 1] == value


def test_the_other_ratio_of_the_paper_and_options_of_ones_own() -> None:
    words = arguments("--batch-size", "16", RATIO="0.05")
    assert words[words.index("--ratio") + 1] == "0.05"
    assert words[words.index("--output") + 1] == "runs/ccot_gsm8k_llama7b_0.05"
    assert words[-2:] == ["--batch-size", "16"]


def test_a_dry_run(tmp_path: Path) -> None:
    """From GSM8K's own file: chains without annotations, and memory that fits."""
    (tmp_path / "gsm8k.jsonl").write_text(json.dumps(ROW) + "\n")
    data = tmp_path / "data"
    done = _run(NAME, GSM8K=str(tmp_path / "gsm8k.jsonl"), DATA_DIR=str(data))
    assert done.returncode == 0, done.stderr
    [problem] = load_step_problems(str(data / "train.jsonl"))
    assert problem.steps == ("He had 3*4 = 12.", "One more: 13.")
    for line in ("32 layers, l = 15", "at most 20 of an answer", "generator_rank: 128", "of 80"):
        assert line in done.stdout


def test_a_test_file_that_is_named_later_is_made_too(tmp_path: Path) -> None:
    """The dry run of the recipe's head has none; what it made must not hide the next one's."""
    other = {**ROW, "question": "How many more?"}
    for name, rows in {"gsm8k": [ROW, other], "test": [other]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"GSM8K": str(tmp_path / "gsm8k.jsonl"), "DATA_DIR": str(tmp_path / "data")}
    test = {"TEST": str(tmp_path / "test.jsonl")}
    assert _run(NAME, **own).returncode == 0
    done = _run(NAME, DATA_DIR=own["DATA_DIR"], **test)
    assert f"{own['DATA_DIR']} has no heldout.jsonl; set GSM8K to GSM8K's train" in done.stderr
    assert _run(NAME, **own, **test).returncode == 0
    [asked] = load_step_problems(str(tmp_path / "data" / "heldout.jsonl"))
    [kept] = load_step_problems(str(tmp_path / "data" / "train.jsonl"))
    assert (asked.question, kept.question) == (other["question"], ROW["question"])


def test_without_data(tmp_path: Path) -> None:
    done = _run(NAME, DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr == f"error: {tmp_path} has no train.jsonl; set GSM8K to GSM8K's training file\n"
    )
