"""What an evaluation asks, checks and keeps around its engine; none is started here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.data.benchmarks import load_benchmark
from rsp_rl.evaluation.folder import EvaluationFolder, Sample, StepFolder
from rsp_rl.evaluation.manifest import is_complete
from rsp_rl.evaluation.protocol import Protocol, choose_problems, load_protocol
from rsp_rl.evaluation.questions import Question, questions
from rsp_rl.evaluation.rescore import rescore, sample_files
from rsp_rl.evaluation.runner import evaluate
from rsp_rl.evaluation.samples import read_samples, verdict_fields, write_samples
from rsp_rl.grading import grade
from rsp_rl.inference.requests import Completion, EngineOptions, Request
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.tiny import make_tiny_model
from tests.unit.templates import BARE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", steps=0, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> StepFolder:
    return EvaluationFolder(tmp_path / "evaluation").step(0)


def protocol(*overrides: str) -> Protocol:
    chosen = load_protocol("tiny", ("benchmarks.arithmetic.limit=5", *overrides))
    return replace(chosen, rsp=replace(chosen.rsp, mean=0.0, std=1.0))


def asked(model: Path, *overrides: str, context: int | None = 1024) -> list[Question]:
    chosen = protocol(*overrides)
    (plan,) = chosen.benchmarks
    problems = choose_problems(plan, load_benchmark("arithmetic"), chosen.seed)
    tokenizer = load_tokenizer(model)
    return list(questions(plan, problems, chosen, tokenizer, dtype="bfloat16", context=context))


def answered(question: Question, output: str) -> Sample:
    return {
        "problem": question.problem.id,
        "sample": question.sample,
        "seed": question.request.sampling["seed"],
        "prompt_hash": question.prompt_hash,
        "gold": question.problem.gold,
        "output": output,
        "finish_reason": "stop",
        "tokens": 4,
        **verdict_fields(grade(output, question.problem.gold)),
    }


class Mute:
    """Engines without an answer."""

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        yield [Completion(request.number, "", 0, "stop") for request in requests]

    def close(self) -> None:
        """Nothing to free."""


# Questions.

SAMPLED = ("sampling.temperature=1.0", "sampling.samples=3")


def test_every_sample_has_a_seed_of_its_own(model: Path) -> None:
    found = asked(model, *SAMPLED)
    assert [(q.problem.id, q.sample) for q in found[:4]] == [
        (found[0].problem.id, 0),
        (found[0].problem.id, 1),
        (found[0].problem.id, 2),
        (found[3].problem.id, 0),
    ]
    assert len({q.request.sampling["seed"] for q in found}) == len(found) == 15
    assert asked(model, *SAMPLED) == found
    assert all(q.request.record is None for q in found)


def test_independent_and_shared_draws(model: Path) -> None:
    for mode, draws in (("independent", 15), ("shared", 5)):
        found = asked(model, *SAMPLED, "rsp.length=4", f"rsp.mode={mode}")
        seeds = {q.request.record.seed for q in found}
        assert len(seeds) == draws
        assert not seeds & {q.request.sampling["seed"] for q in found}
        for question in found:
            record = question.request.record
            span = question.request.token_ids[record.start : record.start + 4]
            assert span == [record.placeholder_id] * 4
            assert record.dtype == "bfloat16"


def test_soft_prompts_change_the_prompt_and_not_the_sampling(model: Path) -> None:
    plain, soft = asked(model, *SAMPLED), asked(model, *SAMPLED, "rsp.length=4")
    assert [q.request.sampling for q in plain] == [q.request.sampling for q in soft]
    assert not {q.prompt_hash for q in plain} & {q.prompt_hash for q in soft}


def test_generation_stops_where_the_template_closes_a_turn(model: Path) -> None:
    (stop,) = asked(model)[0].request.sampling["stop_token_ids"]
    assert load_tokenizer(model).decode([stop]) == "<|im_end|>"


def test_a_prompt_that_rsp_makes_too_long(model: Path) -> None:
    asked(model, "rsp.length=4", context=64)
    with pytest.raises(ConfigError, match=r"arithmetic, problem .* 60 of them RSP, .* of 64"):
        asked(model, "rsp.length=60", context=64)


# What is kept.


def test_a_complete_evaluation_starts_no_engine(model: Path, folder: StepFolder) -> None:
    folder.root.mkdir(parents=True)
    found = asked(model)
    outputs = [f"\\boxed{{{q.problem.gold if i else 'x'}}}" for i, q in enumerate(found)]
    samples = [answered(q, output) for q, output in zip(found, outputs, strict=True)]
    write_samples(folder.samples("arithmetic"), reversed(samples))
    assert not is_complete(folder, protocol())
    outcome = evaluate(model, protocol(), folder)
    assert (outcome.accuracy, outcome.failed, outcome.generated) == ({"arithmetic": 0.8}, {}, 0)
    assert read_samples(folder.samples("arithmetic")) == samples
    assert is_complete(folder, protocol())
    assert not is_complete(folder, protocol("seed=1"))


def test_a_law_that_the_engine_cannot_use_is_refused_before_it_starts(
    model: Path, folder: StepFolder
) -> None:
    law = ("law.name=fuzzy", "law.end=[]", "law.max_thoughts=3")
    with pytest.raises(ConfigError, match="law=fuzzy mixes the whole vocabulary"):
        evaluate(model, protocol(*law), folder, engine=EngineOptions(tensor_parallel=2))
    assert not folder.root.exists()


def test_samples_of_another_prompt_are_not_mixed_in(model: Path, folder: StepFolder) -> None:
    folder.root.mkdir(parents=True)
    first, *others = [answered(q, "") for q in asked(model)]
    write_samples(folder.samples("arithmetic"), [{**first, "prompt_hash": "0" * 16}, *others])
    outcome = evaluate(model, protocol(), folder)
    assert "another prompt" in outcome.failed["arithmetic"]


def test_a_step_with_the_weights_of_another_is_turned_away(
    model: Path, folder: StepFolder, tmp_path: Path
) -> None:
    """Before an engine starts; stored in another dtype and under other names too."""
    folder.root.mkdir(parents=True)
    write_samples(folder.samples("arithmetic"), [answered(q, "") for q in asked(model)])
    evaluate(model, protocol(), folder)
    copy = shutil.copytree(model, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    save_file({name: value.double() for name, value in weights.items()}, copy / "x.safetensors")
    other = EvaluationFolder(folder.root.parent).step(10)
    with pytest.raises(RunFolderError, match=r"steps 0 and 10 of .* have the same weights"):
        evaluate(copy, protocol(), other)
    evaluate(model, protocol(), folder)  # again itself


def test_how_the_weights_are_stored_is_said(model: Path, folder: StepFolder) -> None:
    folder.root.mkdir(parents=True)
    write_samples(folder.samples("arithmetic"), [answered(q, "") for q in asked(model)])
    evaluate(model, protocol(), folder, unlike_training=["the prompts differ"])
    how = read_json(folder.manifest)
    assert how["stored"] == {"dtype": "float32", "made_of": None}
    assert how["unlike_training"] == ["the prompts differ"]


def test_another_protocol_model_or_engine_is_turned_away(
    model: Path, folder: StepFolder, tmp_path: Path
) -> None:
    folder.root.mkdir(parents=True)
    write_samples(folder.samples("arithmetic"), [answered(q, "") for q in asked(model)])
    evaluate(model, protocol(), folder)
    with pytest.raises(RunFolderError, match="samples of another protocol"):
        evaluate(model, protocol("seed=1"), folder)
    other = make_tiny_model(tmp_path / "other", steps=0, seed=1, threads=1)
    with pytest.raises(RunFolderError, match="samples of another model"):
        evaluate(other, protocol(), folder)
    with pytest.raises(RunFolderError, match="samples of another engine"):
        evaluate(model, protocol(), folder, engine=EngineOptions(kind="huggingface"))


def test_changed_problems_are_noticed(model: Path, folder: StepFolder) -> None:
    folder.root.mkdir(parents=True)
    write_samples(folder.samples("arithmetic"), [answered(q, "") for q in asked(model)])
    file = EvaluationFolder(folder.root.parent).problems("arithmetic")
    evaluate(model, protocol(), folder)
    file.write_text(file.read_text().replace("Compute", "Calculate"))
    assert "other problems" in evaluate(model, protocol(), folder).failed["arithmetic"]


@pytest.mark.parametrize("missing", ["config.json", "*.safetensors", "tokenizer*"])
def test_an_unusable_model_is_named(model: Path, folder: StepFolder, missing: str, tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    gone = {file.name for file in model.glob(missing)}
    for file in model.iterdir():
        if file.name not in gone:
            (broken / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="broken"):
        evaluate(broken, protocol(), folder)
    assert not folder.root.exists()


def _with_tokenizer(model: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """The model with a changed tokenizer."""
    shutil.copytree(model, folder)
    tokenizer = load_tokenizer(model)
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    return folder


def _fill(model: Path, folder: StepFolder) -> None:
    """Answers to all that is asked, so that no engine is needed."""
    folder.root.mkdir(parents=True)
    write_samples(folder.samples("arithmetic"), [answered(q, "") for q in asked(model)])


def test_a_date_in_the_prompts_is_said(
    model: Path, folder: StepFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def dated(tokenizer: Any) -> None:
        tokenizer.chat_template = "{{ strftime_now('%Y') }}" + tokenizer.chat_template

    changed = _with_tokenizer(model, tmp_path / "dated", dated)
    _fill(changed, folder)
    evaluate(changed, protocol(), folder)
    assert "warning: the chat template writes today's date" in capsys.readouterr().err
    evaluate(model, protocol(), EvaluationFolder(tmp_path / "other").step(0), engines=Mute())
    assert "warning" not in capsys.readouterr().err


def test_characters_that_the_tokenizer_does_not_know_are_counted(
    model: Path, folder: StepFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(model, changed)
    settings = read_json(changed / "tokenizer_config.json")
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": {"AutoTokenizer": "x"}}
    (changed / "tokenizer_config.json").write_text(json.dumps(settings))  # takes the file as it is
    tokenizer = read_json(changed / "tokenizer.json")
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "-"}, "content": ""}
    (changed / "tokenizer.json").write_text(json.dumps(tokenizer))
    _fill(changed, folder)
    evaluate(changed, protocol(), folder)
    said = capsys.readouterr().err
    assert "warning: arithmetic: the tokenizer does not know all characters of" in said
    assert "such as '-'; the model reads nothing" in said


def test_a_prompt_without_a_place_is_named(model: Path, folder: StepFolder, tmp_path: Path) -> None:
    def bare(tokenizer: Any) -> None:
        tokenizer.chat_template = BARE

    changed = _with_tokenizer(model, tmp_path / "bare", bare)
    failed = evaluate(changed, protocol("rsp.length=4"), folder).failed["arithmetic"]
    assert failed.startswith("the prompt of arithmetic, problem ")
    assert "no end-of-turn token found" in failed


def test_tokens_that_the_model_does_not_have_fail_their_benchmark(
    model: Path, folder: StepFolder, tmp_path: Path
) -> None:
    def longer(tokenizer: Any) -> None:
        tokenizer.add_tokens(["<|extra|>"])
        tokenizer.chat_template = "<|extra|>" + tokenizer.chat_template

    changed = _with_tokenizer(model, tmp_path / "longer", longer)
    failed = evaluate(changed, protocol(), folder).failed["arithmetic"]
    assert failed.startswith("the prompt of arithmetic, problem ")
    assert "holds '<|extra|>', token " in failed


def test_padding_that_the_model_does_not_have_is_refused(
    model: Path, folder: StepFolder, tmp_path: Path
) -> None:
    changed = _with_tokenizer(
        model, tmp_path / "padded", lambda t: t.add_special_tokens({"pad_token": "[PAD]"})
    )
    with pytest.raises(ConfigError, match=r"padding token '\[PAD\]'"):
        evaluate(changed, protocol("rsp.length=4"), folder)
    with pytest.raises(ConfigError, match=r"padding token '\[PAD\]'"):
        evaluate(changed, protocol(), folder, engine=EngineOptions(kind="huggingface"))


# Grading anew.


def test_rescoring_replaces_verdicts_and_keeps_outputs(model: Path, folder: StepFolder) -> None:
    folder.root.mkdir(parents=True)
    found = asked(model)
    right = [answered(q, f"\\boxed{{{q.problem.gold}}}") for q in found]
    file = folder.samples("arithmetic")
    write_samples(file, [{**sample, "correct": False} for sample in right])
    evaluate(model, protocol(), folder)
    assert json.loads(folder.metrics("arithmetic").read_text())["accuracy"] == 0
    result = rescore(file, processes=1)
    assert (result.accuracy, len(result.changed)) == (1.0, 5)
    assert read_samples(file) == right
    assert json.loads(folder.metrics("arithmetic").read_text())["accuracy"] == 1


def test_files_to_rescore(folder: StepFolder, tmp_path: Path) -> None:
    folder.root.mkdir(parents=True)
    file = folder.samples("arithmetic")
    write_samples(file, [])
    for path in (file, folder.root, folder.root.parent):
        assert sample_files(path) == [file]
    with pytest.raises(RunFolderError, match="no folder of an evaluation"):
        sample_files(tmp_path / "nowhere")
