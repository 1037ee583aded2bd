"""Evaluations of models that think: their files, resume, grading, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.cli import main
from rsp_rl.data import arithmetic_steps
from rsp_rl.data.step_problems import StepProblem, write_step_problems
from rsp_rl.evaluation import thinkers
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.marked import MARKED, grade_marked
from rsp_rl.evaluation.rescore import rescore
from rsp_rl.evaluation.step_answers import Asked
from rsp_rl.evaluation.summary import read_summary
from rsp_rl.evaluation.thinkers import evaluate_thinker
from rsp_rl.evaluation.viewer_data import OUTPUT_BYTES, viewer_data
from rsp_rl.latent.folder import Thinking, load_thinker, new_classifier, save_thinker
from rsp_rl.latent.generation import answer
from rsp_rl.latent.problem_tokens import is_right, tokenize
from rsp_rl.latent.run_folder import find_thinker
from rsp_rl.latent.scratch import make_model
from rsp_rl.latent.settings import Settings
from tests.unit.evaluation.test_html_report import report

PROBLEMS = arithmetic_steps.generate("heldout", 7)
SETTINGS = Settings(max_stage=2, thoughts_per_step=2, max_new_tokens=6)


def save(base: Path, folder: Path, settings: Settings) -> Path:
    """A random model's folder as a training with these settings would leave it."""
    thinker = load_thinker(base)
    thinker.thinking = Thinking.of(settings)
    # The added tokens begin with one row, and their logits would tie.
    with torch.no_grad():
        table = thinker.model.get_input_embeddings().weight
        table += 0.01 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    if settings.ends == "classifier":
        thinker.classifier = new_classifier(thinker.model)
    save_thinker(folder, thinker)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    problems = arithmetic_steps.generate("train", 64)
    sizes = {"layers": 1, "hidden_size": 32, "heads": 2, "context": 64}
    return make_model(tmp_path_factory.mktemp("base"), problems, **sizes)


@pytest.fixture
def run(base, tmp_path) -> Path:
    """A finished run's folder."""
    save(base, tmp_path / "run" / "model", SETTINGS)
    said = {"settings": asdict(SETTINGS), "of": {"problems_digest": "d1"}}
    (tmp_path / "run" / "run.json").write_text(json.dumps(said))
    (tmp_path / "run" / "metrics.jsonl").write_text(
        '{"epoch": 49, "step": 1}\n{"epoch": 49, "validation_accuracy": 0.5, "of": 2}\n{"epo'
    )
    return tmp_path / "run"


@pytest.fixture
def data(tmp_path) -> Path:
    file = tmp_path / "held out.jsonl"
    write_step_problems(file, PROBLEMS)
    return file


def asked(**changes) -> Asked:
    return replace(Asked("some/held out.jsonl", PROBLEMS, batch_size=3), **changes)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def samples_of(root: Path) -> Path:
    return EvaluationFolder(root).step(0).samples("held_out")


def test_samples_are_the_models_greedy_answers(run, tmp_path):
    summary = evaluate_thinker(find_thinker(str(run)), asked(), tmp_path / "out")
    thinker = load_thinker(run / "model")
    expected = list(answer(thinker, [t.question for t in tokenize(PROBLEMS, thinker.tokenizer)]))
    found = lines(samples_of(tmp_path / "out"))
    assert [sample["output"] for sample in found] == [one.text for one in expected]
    assert [sample["tokens"] for sample in found] == [one.tokens for one in expected]
    assert [sample["finish_reason"] == "stop" for sample in found] == [o.ended for o in expected]
    right = [is_right(o.text, p.answer) for o, p in zip(expected, PROBLEMS, strict=True)]
    assert [sample["correct"] for sample in found] == right
    assert {sample["law"] for sample in found} == {"hidden"}
    assert [sample["thoughts"]["at"] for sample in found] == [[0, 1, 2, 3]] * 7
    assert {*found[0]["thoughts"]["texts"].values()} == {"<|latent|>"}
    assert summary["tokens"] == sum(one.tokens for one in expected) / 7
    assert summary["accuracy"] == sum(right) / 7
    assert summary["accuracy_low"] <= summary["accuracy"] <= summary["accuracy_high"]
    assert summary["seconds_per_problem"] == pytest.approx(sum(s["seconds"] for s in found) / 7)
    assert (summary["thoughts"], summary["problems"], summary["batch_size"]) == (4, 7, 3)
    assert summary["unfinished"] == sum(not one.ended for one in expected)
    assert summary["without_answer"] == sum(not sample["extracted"] for sample in found)
    how = json.loads(EvaluationFolder(tmp_path / "out").step(0).manifest.read_text())
    assert how["trained_on"] == "d1"
    assert (summary["method"], summary["seed"]) == ("coconut", 0)
    assert summary["step_decoder"] == 0
    assert (summary["epochs"], summary["epochs_done"]) == (50, 50)


def test_a_killed_evaluation_goes_on_and_asks_nothing_twice(run, tmp_path, monkeypatch):
    trained, root = find_thinker(str(run)), tmp_path / "out"
    evaluate_thinker(trained, asked(), tmp_path / "whole")
    counted = []

    def counting(thinker, questions, **options):
        for one in answer(thinker, questions, **options):
            counted.append(one)
            yield one

    def first(thinker, questions, **options):
        for number, one in enumerate(answer(thinker, questions, **options)):
            if number == 4:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(thinkers, "answer", first)
    with pytest.raises(KeyboardInterrupt):
        evaluate_thinker(trained, asked(), root)
    assert len(lines(samples_of(root))) == 4
    assert not EvaluationFolder(root).summary_json.exists()
    samples_of(root).open("a").write('{"problem": "4", "sam')
    monkeypatch.setattr(thinkers, "answer", counting)
    summary = evaluate_thinker(trained, asked(), root)
    assert len(counted) == 3
    whole = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["accuracy"] == whole["accuracy"]
    outputs = [[s["output"] for s in lines(samples_of(tmp_path / of))] for of in ("whole", "out")]
    assert outputs[0] == outputs[1]
    evaluate_thinker(trained, asked(), root)
    assert len(counted) == 3


def test_answers_of_vllm(run, tmp_path, monkeypatch):
    """It is given the model, its way to think and what is left, and its answers are kept."""
    from rsp_rl.latent import engine

    calls = []

    def by_vllm(folder, thinking, markers, questions, options):
        calls.append((folder, thinking.thoughts, len(questions)))
        assert (options.kind, options.dtype, options.max_num_seqs) == ("vllm", "float32", 3)
        thinker = load_thinker(folder)
        assert markers == thinker.markers
        yield from answer(thinker, questions, thoughts=thinking.thoughts)

    monkeypatch.setattr(engine, "answer_with_vllm", by_vllm)
    trained = find_thinker(str(run))
    found = evaluate_thinker(trained, asked(engine="vllm", thoughts=1), tmp_path / "vllm")
    evaluate_thinker(trained, asked(engine="vllm", thoughts=1), tmp_path / "vllm")
    assert calls == [(run / "model", 1, 7)]
    expected = evaluate_thinker(trained, asked(thoughts=1), tmp_path / "reference")
    assert (found["tokens"], found["engine"]) == (expected["tokens"], "vllm")
    with pytest.raises(RunFolderError, match="samples of another engine"):
        evaluate_thinker(trained, asked(thoughts=1), tmp_path / "vllm")


@pytest.mark.parametrize("method", ["cot", "pause"])
def test_what_is_no_thought_is_not_counted(base, tmp_path, method):
    settings = replace(SETTINGS, method=method)
    trained = find_thinker(str(save(base, tmp_path / method, settings)))
    summary = evaluate_thinker(trained, asked(), tmp_path / "out")
    found = lines(samples_of(tmp_path / "out"))
    assert summary["thoughts"] == 0
    assert not any("law" in sample for sample in found)
    assert (summary["seed"], summary["epochs"], summary["epochs_done"]) == (None, None, None)


def test_thoughts_that_a_classifier_ends(base, tmp_path):
    ends = {"ends": "classifier", "pad_thoughts": False}
    model = save(base, tmp_path / "model", replace(SETTINGS, **ends))
    summary = evaluate_thinker(find_thinker(str(model)), asked(thoughts=3), tmp_path / "out")
    found = lines(samples_of(tmp_path / "out"))
    assert summary["thoughts"] == sum(len(s["thoughts"]["at"]) for s in found) / 7 == 3


def test_the_page_shows_steps_answer_and_verdict(run, tmp_path):
    evaluate_thinker(find_thinker(str(run)), asked(), tmp_path / "out")
    folder = EvaluationFolder(tmp_path / "out")
    shown = viewer_data(folder, read_summary(folder), OUTPUT_BYTES).benchmarks[0]
    assert shown["name"] == "held_out"
    for entry, problem in zip(shown["problems"], PROBLEMS, strict=True):
        assert (entry["question"], entry["gold"]) == (problem.question, problem.answer)
        assert entry["steps"] == [*problem.steps]
    page = report(folder)
    assert "The question and a line break, no template" in page.text
    assert "law hidden: 4.0 thoughts a sample" in page.text
    assert "seconds a problem" in page.text
    assert page.unpack("index")["benchmarks"][0]["problems"][0]["steps"] == [*PROBLEMS[0].steps]


def test_grading_again_is_by_the_mark(run, tmp_path):
    """The grader of mathematics would find an answer in a text that has no line of one."""
    evaluate_thinker(find_thinker(str(run)), asked(), tmp_path / "out")
    file = samples_of(tmp_path / "out")
    found = lines(file)
    written = ["{gold}", "### {gold}", "### no {gold}", *[""] * 4]
    for sample, output in zip(found, written, strict=True):
        sample["output"] = output.format(gold=sample["gold"])
    file.write_text("".join(json.dumps(sample) + "\n" for sample in found))
    assert rescore(file).accuracy == pytest.approx(1 / 7)
    assert [s["correct"] for s in lines(file)][:3] == [False, True, False]


@pytest.mark.parametrize(
    ("output", "gold", "correct", "extracted"),
    [
        ("Rosa is a fimlo.\n### Rosa is a kovnik.", "Rosa is a kovnik.", True, "Rosa is a kovnik."),
        ("### 1,200", "1200", True, "1,200"),
        ("### 7\nand on", "7", True, "7"),
        ("7", "7", False, ""),
        ("###", "7", False, ""),
        ("### 7.0", "7", False, "7.0"),
    ],
)
def test_verdicts(output, gold, correct, extracted):
    verdict = grade_marked(output, gold)
    assert (verdict.correct, verdict.extracted) == (correct, extracted)
    assert verdict.extraction_step == MARKED


class TestRefused:
    def test_a_classifier_by_vllm(self, base, tmp_path):
        ends = {"ends": "classifier", "pad_thoughts": False}
        trained = find_thinker(str(save(base, tmp_path / "model", replace(SETTINGS, **ends))))
        with pytest.raises(ConfigError, match="by a classifier, which vLLM's worker has not"):
            evaluate_thinker(trained, asked(engine="vllm"), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_thoughts_of_a_method_that_has_none(self, base, tmp_path):
        model = save(base, tmp_path / "cot", replace(SETTINGS, method="cot"))
        with pytest.raises(ConfigError, match="--thoughts 3: method cot answers without thoughts"):
            evaluate_thinker(find_thinker(str(model)), asked(thoughts=3), tmp_path / "out")

    def test_more_thoughts_than_the_context_holds(self, run, tmp_path):
        with pytest.raises(ConfigError, match=r"problem \d: .* 60 thoughts.*context is 64"):
            evaluate_thinker(find_thinker(str(run)), asked(thoughts=60), tmp_path / "out")

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ({"thoughts": 1}, "protocol"),
            ({"problems": PROBLEMS[:5]}, "protocol"),
            ({"batch_size": 2}, "batch size"),
        ],
    )
    def test_another_evaluation_in_the_folder(self, run, tmp_path, change, what):
        evaluate_thinker(find_thinker(str(run)), asked(), tmp_path / "out")
        with pytest.raises(RunFolderError, match=f"samples of another {what}"):
            evaluate_thinker(find_thinker(str(run)), asked(**change), tmp_path / "out")

    def test_another_model_in_the_folder(self, run, base, tmp_path):
        evaluate_thinker(find_thinker(str(run)), asked(), tmp_path / "out")
        save(base, run / "model", replace(SETTINGS, thoughts_per_step=1))
        with pytest.raises(RunFolderError, match="samples of another way to think"):
            evaluate_thinker(find_thinker(str(run)), asked(), tmp_path / "out")

    def test_a_folder_that_does_not_think(self, base, capsys, data):
        assert main(["latent", "eval", str(base), "--data", str(data)]) == 1
        assert "does not say how it thinks (no latent.json)" in capsys.readouterr().err

    def test_a_run_without_a_model_yet(self, run, capsys, data, tmp_path):
        (run / "checkpoints/global_step_3/actor").mkdir(parents=True)
        (run / "model").rename(run / "checkpoints/global_step_3/actor/huggingface")
        assert main(["latent", "eval", str(run), "--data", str(data)]) == 1
        assert "has not finished a model yet" in capsys.readouterr().err
        assert main(["eval", str(run), "--protocol", "tiny"]) == 1
        assert "rsp-rl latent eval" in capsys.readouterr().err

    @pytest.mark.parametrize("where", ["", "model"])
    def test_as_an_ordinary_model(self, run, capsys, where):
        assert main(["eval", str(run / where), "--protocol", "tiny"]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"error: model folder {run / 'model'} is of a training by")
        assert "only `rsp-rl latent eval` does" in said
        assert said.count("\n") == 1

    def test_by_generate(self, run, tmp_path, capsys):
        command = ["generate", "--model", str(run / "model"), "--benchmark", "arithmetic"]
        options = ["--engine", "huggingface", "--output", str(tmp_path / "out")]
        assert main([*command, *options, "--rsp.length", "0"]) == 1
        assert "only `rsp-rl latent eval` does" in capsys.readouterr().err

    def test_by_training(self, run, tmp_path, capsys):
        from rsp_rl.data.arithmetic import write_dataset
        from rsp_rl.training.configs import compose_config
        from rsp_rl.training.preparation import prepare

        written = write_dataset(tmp_path, train_size=16, heldout_size=4)
        files = [f"data.train_files={written['train']}", f"data.val_files={written['heldout']}"]
        model = [f"actor_rollout_ref.model.path={run / 'model'}", f"run_dir={tmp_path / 'rl'}"]
        with pytest.raises(ConfigError, match="only `rsp-rl latent eval` does"):
            prepare(compose_config("tiny_cpu", model + files))


class TestCommand:
    def test_of_a_run(self, run, data, capsys):
        options = ["--data", str(data), "--batch-size", "4", "--engine", "huggingface"]
        assert main(["latent", "eval", str(run), *options]) == 0
        root = run / "evaluation" / "held_out"
        assert f"report   {root / 'report.html'}" in capsys.readouterr().out
        assert json.loads((root / "summary.json").read_text())["problems"] == 7
        assert main(["latent", "eval", str(run), *options, "--limit", "2", "--thoughts", "0"]) == 0
        (other,) = {*(run / "evaluation").iterdir()} - {root}
        assert other.name.startswith("held_out-")
        found = json.loads((other / "summary.json").read_text())
        assert (found["problems"], found["thoughts"]) == (2, 0)

    def test_a_run_is_found_by_its_model(self, run):
        assert find_thinker(str(run / "model")).run == run

    def test_problems_need_no_steps(self, run, tmp_path):
        file = tmp_path / "bare.jsonl"
        bare = [StepProblem(p.question, (), p.answer) for p in PROBLEMS]
        write_step_problems(file, bare, needs_steps=False)
        assert main(["latent", "eval", str(run), "--data", str(file)]) == 0

    @pytest.mark.parametrize("value", ["-1", "two", "1.5"])
    def test_thoughts_that_are_no_number(self, run, data, value, capsys):
        with pytest.raises(SystemExit):
            main(["latent", "eval", str(run), "--data", str(data), f"--thoughts={value}"])
        assert "is no whole number from 0 on" in capsys.readouterr().err
