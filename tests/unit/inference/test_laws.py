"""Laws at inference: their draws, what they need of the model, old protocols unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsp_rl.analysis.conditions import open_conditions, position_name
from rsp_rl.analysis.teacher_forcing import ForcedModel
from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.cli import main
from rsp_rl.data.benchmarks import Problem, load_benchmark
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.embedding_table import FOLDER_VARIABLE, open_embedding_table
from rsp_rl.draws.laws import LAWS, Vocabulary
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.protocol import Protocol, load_protocol
from rsp_rl.evaluation.questions import questions
from rsp_rl.evaluation.runner import evaluate
from rsp_rl.inference.generator import Generator
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.model_law import name_table, with_model_law
from rsp_rl.inference.prompts import Sampling, sample_requests, sample_seeds
from rsp_rl.inference.requests import EngineOptions, Request
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.placement.prompt import PlacedPrompt
from tests.digit_model import make_digit_model

SAMPLING = Sampling(0.0, 1.0, 0, 4, (), ())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_model(tmp_path_factory.mktemp("model") / "tiny")


def records(model: Path, law: str, prompt: str = "0", samples: int = 2) -> list[SoftPromptRecord]:
    rsp = with_model_law(RspOptions(length=3, law=law), model)
    seeds = sample_seeds(0, rsp, "arithmetic", prompt, samples)
    placed = PlacedPrompt([0] * 8, 2)
    requests = sample_requests(placed, load_tokenizer(model), rsp, SAMPLING, seeds, "float32")
    return [request.record for request in requests]


def test_gaussian_draws_are_as_ever(model: Path) -> None:
    first, second = records(model, "gaussian")
    assert (first.law, first.table) == ("gaussian", 0)
    assert first.seed != second.seed


def test_fixed_has_one_draw_for_all_problems_and_samples(model: Path) -> None:
    drawn = records(model, "fixed") + records(model, "fixed", prompt="1")
    assert len({record.seed for record in drawn}) == 1
    assert {record.law for record in drawn} == {"fixed"}


def test_vocab_draws_rows_of_the_models_own_table(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "elsewhere")
    name_table(model)
    first, second = records(model, "vocab")
    table = open_embedding_table(model)
    assert first.table == int(table.digest(), 16)
    rows = torch.from_numpy(table.rows(torch.arange(table.vocab_size).numpy()))
    for record in (first, second):
        for row in record.draw(table.hidden_size):
            assert (rows == row.float()).all(dim=1).any()


def test_old_protocols_keep_their_fingerprints() -> None:
    content = load_protocol("rsp_inference", ["rsp.length=20"]).to_dict()
    assert "law" not in content["rsp"]
    usual = Protocol.from_dict(content)
    content["rsp"]["law"] = "gaussian"
    assert Protocol.from_dict(content).fingerprint() == usual.fingerprint()
    content["rsp"]["law"] = "sphere"
    other = Protocol.from_dict(content)
    assert other.fingerprint() != usual.fingerprint()
    assert Protocol.from_dict(other.to_dict()) == other


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rsp.law=cauchy"], "rsp.law='cauchy' is unknown"),
        (["rsp.law=vocab", "rsp.scale=2"], "rows of the pretrained table as they are"),
        (
            ["rsp.law=fixed", "sampling.samples=4", "sampling.temperature=0"],
            "4 greedy samples of a problem are all the same",
        ),
    ],
)
def test_what_no_law_can_do(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_protocol("rsp_inference", ["rsp.length=4", "benchmarks=[gsm8k]", *overrides])


def test_a_checkpoint_has_no_table_of_its_run(model: Path, tmp_path: Path) -> None:
    protocol = load_protocol("tiny", ["rsp.length=4", "rsp.law=vocab"])
    folder = EvaluationFolder(tmp_path).step(1)
    engine = EngineOptions(kind="huggingface", dtype="float32")
    with pytest.raises(ConfigError, match="evaluate the checkpoint's folder as a model"):
        evaluate(model, protocol, folder, engine=engine, law=(0.0, 1.0))


def test_the_same_draws_are_made_again(model: Path, tmp_path: Path) -> None:
    """`how.json` keeps which table it was."""
    command = ["eval", str(model), "rsp.length=2", "rsp.law=vocab", "benchmarks.arithmetic.limit=2"]
    command += ["--protocol", "tiny", "--engine", "huggingface", "--dtype", "float32"]
    assert main([*command, "--output", str(tmp_path / "a")]) == 0
    (condition,) = open_conditions([str(tmp_path / "a")], lambda protocol: "vocab")
    assert condition.manifest["law"]["table_digest"] == open_embedding_table(model).digest()
    record = next(ForcedModel(condition).questions("arithmetic")).request.record
    assert record.law == "vocab"
    assert record.table == int(open_embedding_table(model).digest(), 16)


def test_the_python_api_draws_by_any_law(model: Path) -> None:
    options = EngineOptions(kind="huggingface", dtype="float32")
    with Generator(str(model), template="plain-chat", options=options) as generator:
        texts = {
            law: [s.text for s in generator.generate("1+2", length=4, draw=law, max_tokens=8)]
            for law in ("gaussian", "vocab", "sphere")
        }
    assert len({tuple(text) for text in texts.values()}) > 1


def test_rows_of_the_table_may_be_added(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a law of a package: it has no length, and needs the table's digest all the same."""
    added = type("Added", (Vocabulary,), {"name": "added", "added": True})
    monkeypatch.setitem(LAWS._own, "added", added())
    options = EngineOptions(kind="huggingface", dtype="float32")
    with Generator(str(model), template="plain-chat", options=options) as generator:
        assert len(generator.generate("1+2", draw="added", max_tokens=4)) == 1


NOISE = ["rsp.law=question_noise", "rsp.scale=20"]


def asked_with_noise(model: Path, overrides: Sequence[str] = NOISE) -> list[Request]:
    protocol = load_protocol("tiny", overrides)
    protocol = replace(protocol, rsp=with_model_law(protocol.rsp, model))
    plan, *_ = protocol.benchmarks
    problems = load_benchmark(plan.benchmark)[:2]
    tokenizer = load_tokenizer(model)
    return [
        question.request
        for question in questions(
            plan, problems, protocol, tokenizer, dtype="float32", context=None, model=model
        )
    ]


def test_noise_on_the_question_leaves_an_evaluations_prompts_as_they_are(model: Path) -> None:
    noisy, plain = asked_with_noise(model), asked_with_noise(model, [])
    assert [request.token_ids for request in noisy] == [request.token_ids for request in plain]
    for request, other in zip(noisy, plain, strict=True):
        record = request.record
        span = request.token_ids[record.start : record.start + record.length]
        assert record.stands_at(span)
        assert load_tokenizer(model).decode(span).strip().startswith(request.question)
        assert (record.mean, record.std, other.record) == (0.0, 20, None)
    off = asked_with_noise(model, ["rsp.law=question_noise", "rsp.scale=0"])
    assert off == plain
    with pytest.raises(ConfigError, match=r"rsp\.length=4 and rsp\.law=question_noise"):
        load_protocol("tiny", [*NOISE, "rsp.length=4"])


def test_the_reference_engine_adds_noise(model: Path) -> None:
    """Noisy, drawn and plain requests in one padded batch, against embeddings made by hand."""
    engine = HuggingFaceEngine(model, EngineOptions(kind="huggingface", dtype="float32"))
    requests = [*asked_with_noise(model), *asked_with_noise(model, ["rsp.length=3"])]
    requests += asked_with_noise(model, [])
    embeds, mask = engine._embed(requests)
    table = engine.host.network.get_input_embeddings().weight
    for request, row, own in zip(requests, embeds, mask.bool(), strict=True):
        wanted = table[torch.tensor(request.token_ids)].clone()
        if (record := request.record) is not None:
            span = slice(record.start, record.start + record.length)
            rows = record.draw(table.shape[1])
            wanted[span] = wanted[span] + rows if record.added_to else rows
        assert torch.equal(row[own], wanted)
    assert len(list(engine.generate(requests))) > 0


def test_the_python_api_adds_noise(model: Path) -> None:
    options = EngineOptions(kind="huggingface", dtype="float32")
    with Generator(str(model), template="plain-chat", options=options) as generator:
        plain, silent, noisy, again = (
            [
                s.text
                for s in generator.generate("1+2", samples=3, max_tokens=8, temperature=0, **more)
            ]
            for more in (
                {},
                {"draw": "question_noise", "scale": 0.0},
                {"draw": "question_noise", "scale": 60.0},
                {"draw": "question_noise", "scale": 60.0},
            )
        )
    assert plain == silent != noisy == again
    assert len({*plain}) == 1 < len({*noisy})


def test_a_blank_question_is_asked_without_noise(model: Path) -> None:
    """An alpha of 0 is a run without noise, hence of no question that must be found."""
    blank = [Problem("arithmetic", "1", " ", "7")]
    tokenizer = load_tokenizer(model)

    def asked(*overrides: str) -> list[Request]:
        protocol = load_protocol("tiny", ["template=plain-chat", *overrides])
        plan, *_ = protocol.benchmarks
        found = questions(plan, blank, protocol, tokenizer, dtype="float32", context=None)
        return [question.request for question in found]

    assert asked("rsp.law=question_noise", "rsp.scale=0") == asked()
    with pytest.raises(PlacementError, match="the user's message is empty"):
        asked(*NOISE)
    options = EngineOptions(kind="huggingface", dtype="float32")
    with Generator(str(model), template="plain-chat", options=options) as generator:
        (plain,) = generator.generate(" ", max_tokens=4)
        (silent,) = generator.generate(" ", max_tokens=4, draw="question_noise", scale=0.0)
        assert silent == plain
        with pytest.raises(PlacementError, match="the user's message is empty"):
            generator.generate(" ", max_tokens=4, draw="question_noise")


def test_the_command_line_adds_noise(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "--model", str(model), "--benchmark", "arithmetic", "--limit", "2"]
    command += ["--engine", "huggingface", "--dtype", "float32", "--max-tokens", "4"]
    command += ["--template", "plain-chat", "--rsp.law", "question_noise"]
    assert main([*command, "--output", str(tmp_path / "a"), "--rsp.scale", "5"]) == 0
    assert "question_noise: " in capsys.readouterr().err
    (folder,) = (tmp_path / "a").iterdir()
    assert folder.name.startswith("huggingface-question_noise-")
    (condition,) = open_conditions([str(folder)], position_name)
    assert condition.name == "question_noise"
    question = next(ForcedModel(condition).questions("arithmetic"))
    assert question.request.record.added_to
    assert main([*command, "--output", str(tmp_path / "b"), "--rsp.length", "8"]) == 1
    assert "rsp.length=8 and rsp.law=question_noise" in capsys.readouterr().err
