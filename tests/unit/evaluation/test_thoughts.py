"""Evaluations with a law: what is asked, refused, kept, counted and shown; no model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rsp_rl.basics.errors import ConfigError, GenerationError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.data.benchmarks import load_benchmark
from rsp_rl.display.pages import asset
from rsp_rl.display.thoughts import THOUGHTS_HEAD, THOUGHTS_TAIL
from rsp_rl.evaluation.folder import EvaluationFolder, StepFolder
from rsp_rl.evaluation.metrics import benchmark_metrics
from rsp_rl.evaluation.outputs import write_outputs
from rsp_rl.evaluation.protocol import Protocol, choose_problems, load_protocol
from rsp_rl.evaluation.questions import Question, questions
from rsp_rl.evaluation.rescore import rescore
from rsp_rl.evaluation.runner import evaluate
from rsp_rl.evaluation.samples import read_samples
from rsp_rl.evaluation.thoughts import thought_line, thought_metrics
from rsp_rl.evaluation.viewer_data import shown_sample
from rsp_rl.inference.model_law import model_law
from rsp_rl.inference.requests import Completion, Request
from rsp_rl.inference.thinking import thinking_of_model
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.thoughts.record import ThoughtRecord
from rsp_rl.thoughts.rows import Kind, Rows, concatenate
from rsp_rl.thoughts.settings import ThoughtSettings
from rsp_rl.tiny import make_tiny_model
from tests.unit.evaluation.made_runs import sample

LAW = ("law.name=gumbel", "law.k=3", "law.end=[]", "law.max_thoughts=4", "law.on_cut=x")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", steps=0, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> StepFolder:
    return EvaluationFolder(tmp_path / "evaluation").step(0)


def protocol(*overrides: str) -> Protocol:
    return load_protocol("tiny", ("benchmarks.arithmetic.limit=3", *overrides))


def asked(model: Path, *overrides: str, context: int | None = 1024) -> list[Question]:
    chosen = protocol(*overrides)
    chosen = replace(chosen, rsp=replace(chosen.rsp, mean=0.0, std=1.0))
    tokenizer = load_tokenizer(model)
    (plan,) = chosen.benchmarks
    problems = choose_problems(plan, load_benchmark("arithmetic"), chosen.seed)
    thinking = chosen.law and thinking_of_model(chosen.law, model, tokenizer)
    return list(
        questions(
            *(plan, problems, chosen, tokenizer),
            dtype="float32",
            context=context,
            thinking=thinking,
        )
    )


def record(request: Request, thoughts: int = 2) -> ThoughtRecord:
    """Of some thoughts, a forced token and a last one that was sampled."""
    law = request.thinking.law
    shape = (thoughts, law.slots)
    ids = torch.arange(5, 5 + law.slots, dtype=torch.int32).expand(shape)
    mixed = Rows.of_kind(Kind.MIX, ids, torch.zeros(shape))
    parts = [mixed, Rows.tokens(Kind.FORCED, [9], mixed), Rows.tokens(Kind.TOKEN, [7], mixed)]
    return ThoughtRecord(law, request.thinking.seed, len(request.token_ids), concatenate(parts))


class Thinking:
    """Engines that answer nothing, with thoughts; they may die on the way.

    Args:
        dies_after: Answers until then; None for never.
        change: What becomes of a record.
    """

    def __init__(
        self,
        dies_after: int | None = None,
        change: Callable[[ThoughtRecord], ThoughtRecord | None] = lambda made: made,
    ) -> None:
        self.asked: list[Request] = []
        self._dies_after, self._change = dies_after, change

    def generate(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        for number, request in enumerate(requests):
            if number == self._dies_after:
                raise GenerationError("dead")
            self.asked.append(request)
            made = self._change(record(request))
            yield [Completion(request.number, "\\boxed{1}", 4, "stop", made)]

    def close(self) -> None:
        """Nothing to free."""


# What is asked.


def test_every_sample_has_noise_of_its_own(model: Path) -> None:
    overrides = ("sampling.samples=3", "sampling.temperature=1", "rsp.length=4")
    found = [question.request for question in asked(model, *LAW, *overrides)]
    noise = {request.thinking.seed for request in found}
    assert len(noise) == len(found) == 9
    assert not noise & {request.sampling["seed"] for request in found}
    assert not noise & {request.record.seed for request in found}
    assert [r.thinking for r in found] == [
        question.request.thinking for question in asked(model, *LAW, *overrides)
    ]


def test_a_law_changes_neither_prompts_nor_the_answers_seeds(model: Path) -> None:
    plain, thinking = asked(model), asked(model, *LAW)
    assert [q.prompt_hash for q in plain] == [q.prompt_hash for q in thinking]
    assert [q.request.sampling for q in plain] == [q.request.sampling for q in thinking]
    assert all(q.request.thinking is None for q in plain)


def test_compat_changes_how_the_answer_is_sampled(model: Path) -> None:
    compat = (*LAW, "law.temperature=0.5", "sampling.temperature=1")
    (first, *_) = asked(model, *compat, "law.compat=[same_temperature]")
    assert first.request.sampling["temperature"] == 0.5
    (first, *_) = asked(model, *compat, "law.compat=greedy_answer")
    assert first.request.sampling["temperature"] == 0


def test_a_law_in_units_of_the_table_gets_them(model: Path) -> None:
    soft = ("law.name=soft", "law.end=[]", "law.max_thoughts=4")
    stats = model_law(model)
    law = asked(model, *soft)[0].request.thinking.law
    assert law.rms == pytest.approx((stats.mean**2 + stats.std**2) ** 0.5, rel=1e-12)
    assert asked(model, *soft, "law.rms=2")[0].request.thinking.law.rms == 2
    # Of the pretrained table: the checkpoint's own would change from step to step.
    settings = ThoughtSettings.from_dict("soft", {"end": [], "max_thoughts": 4})
    given = thinking_of_model(settings, model, load_tokenizer(model), (3.0, 4.0))
    assert given.settings.law.rms == 5


def test_thoughts_beyond_the_context_are_refused(model: Path) -> None:
    asked(model, *LAW, context=64)
    with pytest.raises(ConfigError, match=r"arithmetic, problem .* law.max_thoughts=60 leaves no"):
        asked(model, *LAW, "law.max_thoughts=60", "max_tokens=200", context=64)


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (("law.end=</think>",), r"law.end='</think>' is no single token"),
        (("law.name=gumbel", "law.k=100000"), r"law.k=100000, but the model has \d+ tokens"),
        (("law.name=hidden", "law.end=[]", "law.latent_id=99999"), "law.latent_id=99999"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    overrides: tuple[str, ...], cause: str, model: Path, folder: StepFolder
) -> None:
    chosen = protocol(*(LAW if "law.name=hidden" not in overrides else ()), *overrides)
    if "law.name=hidden" in overrides:
        chosen = protocol(*overrides, "law.max_thoughts=4")
    with pytest.raises(ConfigError, match=cause):
        evaluate(model, chosen, folder, engines=Thinking())
    assert not folder.root.exists()


# What is kept.


def test_samples_keep_their_thoughts(model: Path, folder: StepFolder) -> None:
    engines = Thinking()
    outcome = evaluate(model, protocol(*LAW), folder, engines=engines)
    assert outcome.generated == 3
    texts = load_tokenizer(model)
    for row in read_samples(folder.samples("arithmetic")):
        assert row["law"] == "gumbel"
        assert row["thoughts"] == {
            "at": [0, 1, 2],
            "kind": ["mix", "mix", "forced"],
            "ids": [[5, 6, 7], [5, 6, 7], [9]],
            "weights": [[0.3333] * 3, [0.3333] * 3, []],
            "texts": {str(token): texts.decode([token]) for token in (5, 6, 7, 9)},
        }
    how = read_json(folder.manifest)
    assert (how["thinking"]["law"], how["thinking"]["k"]) == ("gumbel", 3)
    assert how["protocol"]["law"]["name"] == "gumbel"
    metrics = read_json(folder.metrics("arithmetic"))["thoughts"]
    assert metrics["all"] == {
        **{"samples": 3, "tokens": 4.0, "thoughts": 2.0},
        **{"thinking_tokens": 3.0, "answer_tokens": 1.0},
    }


def test_an_evaluation_that_dies_goes_on(model: Path, folder: StepFolder, tmp_path: Path) -> None:
    """Cut in the middle of a line, as by kill -9; then it is what it had been uninterrupted."""
    with pytest.raises(GenerationError, match="dead"):
        evaluate(model, protocol(*LAW), folder, engines=Thinking(dies_after=2))
    file = folder.samples("arithmetic")
    file.write_bytes(file.read_bytes()[:-20])
    engines = Thinking()
    assert evaluate(model, protocol(*LAW), folder, engines=engines).generated == 2
    whole = EvaluationFolder(tmp_path / "whole").step(0)
    evaluate(model, protocol(*LAW), whole, engines=Thinking())
    assert file.read_bytes() == whole.samples("arithmetic").read_bytes()


def test_a_law_is_part_of_what_samples_have_in_common(model: Path, folder: StepFolder) -> None:
    evaluate(model, protocol(*LAW), folder, engines=Thinking())
    for other in ((), (*LAW, "law.k=2")):
        with pytest.raises(RunFolderError, match="samples of another protocol"):
            evaluate(model, protocol(*other), folder, engines=Thinking())


@pytest.mark.parametrize(
    "change",
    [
        lambda made: None,
        lambda made: made.cut(3),
        lambda made: replace(made, law=replace(made.law, tau=0.1)),
    ],
    ids=["none", "of fewer tokens", "of another law"],
)
def test_a_missing_or_wrong_record_ends_the_evaluation(
    change: Callable[[ThoughtRecord], ThoughtRecord | None], model: Path, folder: StepFolder
) -> None:
    with pytest.raises(GenerationError, match=r"law.name=gumbel was asked for"):
        evaluate(model, protocol(*LAW), folder, engines=Thinking(change=change))


@pytest.mark.parametrize(
    ("broken", "cause"),
    [
        ({"thoughts": {}}, "go together"),
        ({"law": "gumbel"}, "go together"),
        ({"law": "gumbel", "thoughts": {"at": [1]}}, "not the same positions"),
    ],
)
def test_damaged_thoughts_are_named(broken: dict, cause: str, tmp_path: Path) -> None:
    file = tmp_path / "a.samples.jsonl"
    file.write_text(json.dumps(sample() | broken) + "\n")
    with pytest.raises(RunFolderError, match=rf"line 1 is no sample \(.*{cause}"):
        read_samples(file)


def test_grading_anew_keeps_thoughts_and_their_numbers(model: Path, folder: StepFolder) -> None:
    evaluate(model, protocol(*LAW), folder, engines=Thinking())
    before = folder.samples("arithmetic").read_bytes(), folder.metrics("arithmetic").read_bytes()
    rescore(folder.samples("arithmetic"), processes=1)
    assert before == (
        folder.samples("arithmetic").read_bytes(),
        folder.metrics("arithmetic").read_bytes(),
    )


# What is counted.


def thought_sample(
    number: int, thoughts: int, tokens: int, *, correct: bool = True, forced: bool = False
) -> dict:
    kinds = ["mix"] * thoughts + ["forced"] * forced
    return sample(
        "0",
        number,
        correct,
        tokens=tokens,
        law="gumbel",
        thoughts={
            "at": list(range(len(kinds))),
            "kind": kinds,
            "ids": [[1, 2]] * len(kinds),
            "weights": [[0.75, 0.25]] * thoughts + [[]] * forced,
            "texts": {"1": "a", "2": "b"},
        },
        finish_reason="stop" if tokens > thoughts else "length",
    )


def test_lengths_of_all_and_of_right_answers_apart() -> None:
    made = [
        thought_sample(0, 10, 20, forced=True),
        thought_sample(1, 30, 30, correct=False),
        thought_sample(2, 5, 6, correct=False),  # a token that ends an output, and no answer
    ]
    found = thought_metrics(made)
    assert found["all"]["thoughts"] == 15
    assert found["all"]["thinking_tokens"] == pytest.approx((11 + 30 + 5) / 3)
    assert found["all"]["answer_tokens"] == pytest.approx((9 + 0 + 1) / 3)
    assert found["right"] == {
        **{"samples": 1, "tokens": 20.0, "thoughts": 10.0},
        **{"thinking_tokens": 11.0, "answer_tokens": 9.0},
    }
    assert (found["forced_rate"], found["without_answer_rate"]) == (1 / 3, 2 / 3)
    line = thought_line(found)
    assert line.startswith("law gumbel: 15.0 thoughts a sample, 15.3 tokens of thinking and 3.3 of")
    assert "of the 1 right ones 11.0 and 9.0" in line
    assert "66.7% ended while they thought" in line


def test_without_right_answers_there_are_no_lengths_of_them() -> None:
    found = thought_metrics([thought_sample(0, 1, 2, correct=False)])
    assert found["right"]["tokens"] is None
    assert "right" not in thought_line(found)


def test_metrics_without_a_law_are_as_before() -> None:
    assert thought_metrics([sample()]) is None
    assert "thoughts" not in benchmark_metrics([sample()])


# What is shown.


def test_the_summary_and_the_page_of_an_evaluation(model: Path, folder: StepFolder) -> None:
    evaluate(model, protocol(*LAW), folder, engines=Thinking())
    whole = EvaluationFolder(folder.root.parent)
    write_outputs(whole)
    assert "law gumbel: 2.0 thoughts a sample" in whole.summary_markdown.read_text()
    head, row, *_ = (line.split(",") for line in whole.summary_csv.read_text().splitlines())
    cells = dict(zip(head, row, strict=True))
    assert (cells["law"], cells["thoughts_all"], cells["forced_rate"]) == ("gumbel", "2.0", "1.0")


def test_a_thought_is_shown_as_its_tokens() -> None:
    one = thought_sample(0, 1, 3, forced=True)
    one["thoughts"] |= {"ids": [[1, 2, 3], [2]], "weights": [[0.25, 0.05, 0.7], []]}
    one["thoughts"]["texts"]["3"] = "</script>"
    shown = shown_sample(one)["thoughts"]
    # The emitted token first, the others by weight.
    assert shown["tokens"] == [[("a", 0.25), ("</script>", 0.7), ("b", 0.05)], [("b", None)]]
    assert (shown["kind"], shown["left_out"]) == (["mix", "forced"], 0)
    assert shown_sample(sample())["thoughts"] is None


def test_of_many_thoughts_both_ends_are_shown() -> None:
    many = THOUGHTS_HEAD + THOUGHTS_TAIL + 7
    shown = shown_sample(thought_sample(0, many, many + 1))["thoughts"]
    assert (shown["positions"], shown["left_out"]) == (many, 7)
    assert shown["at"][THOUGHTS_HEAD - 1 : THOUGHTS_HEAD + 1] == [
        THOUGHTS_HEAD - 1,
        THOUGHTS_HEAD + 7,
    ]
    script = asset("rsp_rl.display", "viewer.js")
    assert f"const TAIL_THOUGHTS = {THOUGHTS_TAIL};" in script
