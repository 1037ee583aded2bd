"""`rsp-rl latent ccot`: from a file to a table's numbers, and one error each for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsp_rl.cli import main
from rsp_rl.data.arithmetic_steps import generate
from rsp_rl.data.step_problems import write_step_problems
from rsp_rl.latent.scratch import make_model

TRAIN = [
    *("--generator-rank", "2", "--decoder-rank", "2", "--batch-size", "8", "--threads", "1"),
    *("--learning-rate", "0.01", "--decoder-epochs", "1", "--max-new-tokens", "4"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and problems."""
    folder = tmp_path_factory.mktemp("made")
    problems = generate("train", 16)
    write_step_problems(folder / "train.jsonl", problems)
    sizes = {"layers": 2, "hidden_size": 16, "heads": 2, "context": 128}
    make_model(folder / "model", problems, architecture="llama", **sizes)
    return folder


def train(made: Path, run: Path, *more: str) -> int:
    data = str(made / "train.jsonl")
    model = str(made / "model")
    command = ["latent", "ccot", "train", "--model", model, "--train", data, "--output", str(run)]
    return main([*command, *TRAIN, *more])


@pytest.fixture(scope="module")
def run(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert train(made, folder) == 0
    return folder


def test_train_and_eval(made: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(made / "train.jsonl")
    assert main(["latent", "ccot", "eval", str(run), "--data", data, "--threads", "1"]) == 0
    assert "accuracy " in capsys.readouterr().out
    summary = json.loads((run / "eval" / "summary.json").read_text())
    rows = [json.loads(line) for line in (run / "eval" / "answers.jsonl").read_text().splitlines()]
    assert summary["problems"] == len(rows) == 16
    assert summary["accuracy"] == sum(row["right"] for row in rows) / 16
    assert summary["thoughts"] == sum(row["thoughts"] for row in rows) / 16
    assert rows[0].keys() == {
        *("question", "gold", "right", "text", "thoughts", "cut_off", "tokens", "seconds"),
    }


def test_vllm_says_why_not(made: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(made / "train.jsonl")
    assert main(["latent", "ccot", "eval", str(run), "--data", data, "--engine", "vllm"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: vLLM cannot answer with CCOT: a request there has one LoRA")
    assert len(said.splitlines()) == 1


def test_a_run_that_is_not_finished(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["latent", "ccot", "eval", str(tmp_path), "--data", str(made / "train.jsonl")]) == 1
    assert "holds nothing that CCOT has trained, or its training is not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layer", "3"], "layer is 3, but the model has layers 1 to 2"),
        (["--selection", "scored"], "selection=scored is not offered"),
        (["--ratio", "1"], "200 thoughts and an answer of 4 tokens need 2"),
    ],
)
def test_bad_settings(
    made: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(made, tmp_path / "run", *options) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    assert message in said


def test_problems_without_steps(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.jsonl").write_text('{"question": "1+1?", "steps": [], "answer": "2"}\n')
    (tmp_path / "model").symlink_to(made / "model")
    assert train(tmp_path, tmp_path / "run") == 1
    assert "row 0: 'steps' is empty" in capsys.readouterr().err


def test_a_dry_run_needs_no_weights(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model").mkdir()
    config = (made / "model" / "config.json").read_text()
    (tmp_path / "model" / "config.json").write_text(config)
    (tmp_path / "train.jsonl").symlink_to(made / "train.jsonl")
    assert train(tmp_path, tmp_path / "run", "--dry-run", "--longest-chain", "50") == 0
    said = capsys.readouterr().out
    for line in (
        "2 layers, l = 1",
        "16 problems",
        "steps    generator: 4",
        "at most 5 of an answer",
    ):
        assert line in said
    assert not (tmp_path / "run").exists()
    small = ["--dry-run", "--gpu-memory-gb", "1"]
    assert train(tmp_path, tmp_path / "run", *small) == 1
    assert "do not fit into 1; set a smaller batch_size" in capsys.readouterr().err
