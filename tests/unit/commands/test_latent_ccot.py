"""`rsp-rl latent ccot`: from a file to a table's numbers, and one error each for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsp_rl.cli import main
from rsp_rl.data.arithmetic_steps import generate
from rsp_rl.data.step_problems import write_step_problems
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.samples import read_samples
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
    folder = run / "evaluation" / "train"
    summary = json.loads((folder / "summary.json").read_text())
    samples = read_samples(folder / "step_0" / "train.samples.jsonl")
    assert summary["problems"] == len(samples) == 16
    assert summary["accuracy"] == sum(sample["correct"] for sample in samples) / 16
    thoughts = [len(sample["thoughts"]["at"]) for sample in samples]
    assert summary["thoughts"] == sum(thoughts) / 16
    assert min(thoughts) >= 1
    for sample, count in zip(samples, thoughts, strict=True):
        assert count < sample["tokens"] <= count + 5  # the opening and four more
    assert "positions of law" in (folder / "report.html").read_text()


def test_an_evaluation_goes_on_where_it_was_cut_off(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, data = tmp_path / "out", str(made / "train.jsonl")
    command = ["latent", "ccot", "eval", str(run), "--data", data, "--output", str(output)]
    assert main(command) == 0
    file = output / "step_0" / "train.samples.jsonl"
    whole = [without_seconds(sample) for sample in read_samples(file)]
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:11]))
    assert main(command) == 0
    assert "5 problems to answer, 11 are there" in capsys.readouterr().err
    assert [without_seconds(sample) for sample in read_samples(file)] == whole
    assert main([*command, "--batch-size", "3"]) == 1
    assert "holds samples of another batch size" in capsys.readouterr().err


def without_seconds(sample: Sample) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if name != "seconds"}


def test_another_models_folder(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"layers": 2, "hidden_size": 16, "heads": 2, "context": 128, "seed": 1}
    other = make_model(tmp_path / "other", generate("train", 16), architecture="llama", **sizes)
    data = str(made / "train.jsonl")
    asked = ["--data", data, "--model", str(other)]
    assert main(["latent", "ccot", "eval", str(run), *asked]) == 1
    assert "other has other weights; name the model" in capsys.readouterr().err


def test_vllm_says_why_not(made: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(made / "train.jsonl")
    assert main(["latent", "ccot", "eval", str(run), "--data", data, "--engine", "vllm"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: vLLM cannot answer with CCOT: a request there has one LoRA")
    assert len(said.splitlines()) == 1


def test_the_other_evaluation_names_this_one(
    made: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["latent", "eval", str(run), "--data", str(made / "train.jsonl")]) == 1
    assert "evaluate it with `rsp-rl latent ccot eval`" in capsys.readouterr().err


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
