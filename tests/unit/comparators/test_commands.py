"""The whole way: train, evaluate beside RSP and the baseline, tabulate; by the console command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rsp_rl.analysis.conditions import open_conditions, position_name
from rsp_rl.analysis.teacher_forcing import ForcedModel
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.cli import main
from rsp_rl.comparators.trained_file import FILE
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.evaluation.runner import Outcome, evaluate
from rsp_rl.inference.requests import EngineOptions

CONDITIONS = ("baseline", "random", "ltpo", "ttsv", "softcot")


def train_ttsv(model: Path, output: Path, *more: str) -> int:
    command = ["train-comparator", "ttsv", "--model", str(model), "--output", str(output)]
    command += ["--benchmark", "arithmetic", "--template", "plain-chat", "--limit", "4"]
    return main([*command, "--length", "3", "--epochs", "2", "--max-tokens", "6", *more])


def train_softcot(model: Path, assistant: Path, solutions: Path, output: Path, *more: str) -> int:
    command = ["train-comparator", "softcot", "--model", str(model), "--output", str(output)]
    command += ["--assistant", str(assistant), "--solutions", str(solutions)]
    return main([*command, "--template", "plain-chat", "--epochs", "1", *more])


@pytest.fixture(scope="module")
def root(
    model: Path, assistant: Path, solutions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two trained comparators, and evaluations of the five conditions."""
    root = tmp_path_factory.mktemp("table1")
    assert train_ttsv(model, root / "ttsv") == 0
    assert train_softcot(model, assistant, solutions, root / "softcot") == 0
    command = ["analyze", "evaluate", "trained-or-random", "rsp.length=4", "max_tokens=6"]
    command += ["benchmarks.arithmetic.limit=5", "--model", str(model), "--protocol", "tiny"]
    command += ["--engine", "huggingface", "--dtype", "float32", "--output", str(root / "runs")]
    command += ["--comparator", "ltpo", "steps=3", "rsp.length=4"]
    command += ["--comparator", "ttsv", f"trained={root / 'ttsv'}", "rsp.length=3"]
    assert main([*command, "--comparator", "softcot", f"trained={root / 'softcot'}"]) == 0
    return root


def evaluate_again(root: Path, condition: str) -> Outcome:
    step = EvaluationFolder(root / "runs" / condition).step(0)
    manifest = read_json(step.manifest)
    protocol = Protocol.from_dict(manifest["protocol"])
    engine = EngineOptions(kind="huggingface", dtype="float32")
    return evaluate(Path(manifest["model"]), protocol, step, engine=engine, progress=False)


def outputs(root: Path, condition: str) -> list[str]:
    file = root / "runs" / condition / "step_0" / "arithmetic.samples.jsonl"
    return [json.loads(line)["output"] for line in file.read_text().splitlines()]


def test_the_table_has_a_row_a_method(root: Path, tmp_path: Path) -> None:
    folders = [str(root / "runs" / name) for name in reversed(CONDITIONS)]
    assert main(["analyze", "trained-or-random", *folders, "--output", str(tmp_path)]) == 0
    with (tmp_path / "trained_or_random.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == "arithmetic"]
    assert [(row["method"], row["length"]) for row in rows] == [
        *(("baseline", "0"), ("random", "4"), ("ltpo", "4"), ("ttsv", "3"), ("softcot", "4"))
    ]
    text = (tmp_path / "trained_or_random.md").read_text()
    assert text.startswith("# Accuracy by method of the soft prompt (%)")
    assert "| softcot − baseline |" in text
    assert (tmp_path / "trained_or_random.png").read_bytes().startswith(b"\x89PNG")


def test_how_it_was_made_is_kept(root: Path, model: Path, assistant: Path) -> None:
    how = read_json(root / "ttsv" / "how.json")
    assert (how["method"], how["length"], how["position"]) == ("ttsv", 3, "prefix")
    assert (how["benchmark"], how["problems"], len(how["entropy"])) == ("arithmetic", 4, 2)
    assert how["settings"]["repetition_penalty"] == 1.15
    how = read_json(root / "softcot" / "how.json")
    assert (how["assistant"], how["problems"], len(how["nll"])) == (str(assistant), 8, 1)
    manifest = read_json(root / "runs" / "ttsv" / "step_0" / "how.json")
    assert manifest["protocol"]["comparator"]["method"] == "ttsv"
    assert len(manifest["trained"]) == 16
    assert read_json(root / "runs" / "ltpo" / "step_0" / "how.json")["trained"] is None


def test_presets_are_kept_and_what_was_set_wins(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_ttsv(model, tmp_path / "ttsv", "--preset", "paper-7b", "--batch-size", "4") == 0
    said = "ttsv: preset paper-7b, but length 3 (not 20), epochs 2 (not 20), batch_size 4 (not 2)"
    assert said in capsys.readouterr().err
    how = read_json(tmp_path / "ttsv" / "how.json")
    assert (how["preset"], how["settings"]["learning_rate"]) == ("paper-7b", 1e-5)
    assert how["settings"]["accumulation"] == 8
    instead = {"length": 3, "epochs": 2, "batch_size": 4, "max_tokens": 6}
    assert how["instead_of_preset"] == instead
    assert read_json(root / "ttsv" / "how.json")["preset"] == "authors"
    made = {name: read_json(root / "runs" / name / "step_0" / "how.json") for name in CONDITIONS}
    assert made["random"]["preset"] is None
    assert made["ltpo"]["preset"] == ("preset authors, but steps 3 (not 10), rsp.length 4 (not 10)")
    assert made["ttsv"]["preset"].startswith("preset authors, but length 3 (not 20), epochs 2")


def test_softcot_is_evaluated_at_another_length_than_it_was_trained_at(
    model: Path,
    assistant: Path,
    solutions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paper = ("--preset", "paper-math-7b", "--length", "8", "--limit", "3")
    assert train_softcot(model, assistant, solutions, tmp_path / "s", *paper) == 0
    how = read_json(tmp_path / "s" / "how.json")
    assert (how["length"], how["settings"]["length"]) == (4, 8)
    assert how["instead_of_preset"] == {"epochs": 1, "length": 8, "assistant": str(assistant)}
    of_paper = "(not Qwen/Qwen2.5-Math-1.5B-Instruct)"
    assert f"epochs 1 (not 10), assistant {assistant} {of_paper}" in capsys.readouterr().err
    command = ["eval", str(model), "comparator.method=softcot", f"comparator.trained={tmp_path}/s"]
    command += ["benchmarks.arithmetic.limit=2", "max_tokens=4"]
    engine = ["--protocol", "tiny", "--engine", "huggingface", "--dtype", "float32"]
    assert main([*command, *engine, "--output", str(tmp_path / "out")]) == 0
    assert read_json(tmp_path / "out" / "step_0" / "how.json")["protocol"]["rsp"]["length"] == 4
    assert main([*command, "rsp.length=8", *engine, "--output", str(tmp_path / "other")]) == 1
    assert "set rsp.length=4" in capsys.readouterr().err


def test_one_length_stays_one(
    model: Path, assistant: Path, solutions: Path, tmp_path: Path
) -> None:
    few = ("--length", "2", "--limit", "2")
    assert train_softcot(model, assistant, solutions, tmp_path / "s", *few) == 0
    assert read_json(tmp_path / "s" / "how.json")["length"] == 2


def test_each_method_answers_in_its_own_way(root: Path) -> None:
    assert len({tuple(outputs(root, name)) for name in CONDITIONS}) == len(CONDITIONS)


@pytest.mark.parametrize("name", ["ltpo", "ttsv", "softcot"])
def test_what_was_cut_off_is_taken_up_again(root: Path, name: str) -> None:
    before, step = outputs(root, name), root / "runs" / name / "step_0"
    (step / "arithmetic.metrics.json").unlink()
    file = step / "arithmetic.samples.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    assert evaluate_again(root, name).generated == 3
    assert outputs(root, name) == before


def test_another_training_does_not_mix(root: Path, model: Path) -> None:
    kept = (root / "ttsv" / FILE).read_bytes()
    assert train_ttsv(model, root / "ttsv", "--seed", "1") == 0
    with pytest.raises(RunFolderError, match="holds samples of another trained comparator"):
        evaluate_again(root, "ttsv")
    (root / "ttsv" / FILE).write_bytes(kept)
    assert evaluate_again(root, "ttsv").generated == 0


def test_training_again_gives_the_same_file(
    root: Path, model: Path, assistant: Path, solutions: Path, tmp_path: Path
) -> None:
    assert train_ttsv(model, tmp_path / "ttsv") == 0
    assert (tmp_path / "ttsv" / FILE).read_bytes() == (root / "ttsv" / FILE).read_bytes()
    assert train_softcot(model, assistant, solutions, tmp_path / "softcot") == 0
    assert (tmp_path / "softcot" / FILE).read_bytes() == (root / "softcot" / FILE).read_bytes()


def test_analyses_of_draws_refuse_them(root: Path) -> None:
    (condition,) = open_conditions([str(root / "runs" / "ltpo")], position_name)
    with pytest.raises(ConfigError, match="has soft prompts of ltpo, which are not drawn"):
        ForcedModel(condition)


@pytest.mark.parametrize(
    ("overrides", "engine", "message"),
    [
        (["comparator.method=ltpo"], "vllm", "needs --engine huggingface"),
        (["comparator.method=ttsv", "comparator.trained=gone"], "huggingface", "is missing; train"),
        (["comparator.method=ltpo", "comparator.top_k=99999"], "huggingface", "is more than the"),
    ],
)
def test_errors_come_before_anything_is_written(
    *,
    model: Path,
    tmp_path: Path,
    overrides: list[str],
    engine: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["eval", str(model), *overrides, "--protocol", "tiny", "--engine", engine]
    assert main([*command, "--output", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_trainings(
    model: Path,
    assistant: Path,
    solutions: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train_ttsv(model, tmp_path / "t", "--length", "0") == 1
    assert "--length 0 must be above 0" in capsys.readouterr().err
    assert train_ttsv(model, tmp_path / "t", "--length", "1020") == 1
    assert "leaves no room for an output in a context of 1024" in capsys.readouterr().err
    assert train_softcot(model, tmp_path, solutions, tmp_path / "s") == 1
    assert "SoftCoT's assistant model" in capsys.readouterr().err
    command = ["train-comparator", "softcot", "--model", str(model), "--output", str(tmp_path)]
    assert main([*command, "--solutions", str(solutions)]) == 1
    assert "--assistant is missing: preset authors has none" in capsys.readouterr().err
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"question": "1?", "answer": "1 " * 2_000}) + "\n")
    assert train_softcot(model, assistant, long, tmp_path / "s") == 1
    assert "line 1: prompt and solution are longer than the model's context" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "t").exists()
    assert not (tmp_path / "s").exists()
