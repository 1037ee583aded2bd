"""Likelihoods of choices: against one token after the other, padding, truncation, and resuming."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rsp_rl.analysis import choice_scoring, likelihoods
from rsp_rl.analysis.choice_scoring import Reading, batches, log_probs, reading_of
from rsp_rl.analysis.likelihoods import analyse, chosen
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.cli import main
from rsp_rl.data.choices import ChoiceQuestion
from rsp_rl.models.folder import load_tokenizer
from tests.tolerances import rounding
from tests.unit.templates import FAMILIES, tokenizer_of

QUESTIONS = [
    ChoiceQuestion("0", "Question: What is 3 + 4?\nAnswer:", ("12", "7", "seven of them", "é"), 1),
    ChoiceQuestion("1", "Ice skating: A man", ("skates on.", "is a very long choice" * 3), 0),
    ChoiceQuestion("2", "x", ("1", "22", "333"), 2),
]


def naive(network: torch.nn.Module, tokenizer: object, question: ChoiceQuestion) -> list[float]:
    """One token after the other, each after all before it, and no padding."""
    found = []
    for choice in question.choices:
        whole = tokenizer(f"{question.context} {choice}").input_ids
        before = len(tokenizer(question.context).input_ids)
        total = 0.0
        for place in range(before, len(whole)):
            with torch.inference_mode():
                logits = network(torch.tensor([whole[:place]])).logits[0, -1].double()
            total += float(logits[whole[place]] - torch.logsumexp(logits, 0))
        found.append(total)
    return found


def test_scores_are_those_of_one_token_after_the_other(model: Path) -> None:
    tokenizer = load_tokenizer(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    readings = [reading_of(tokenizer, question, None) for question in QUESTIONS]
    (together,) = batches(readings, 10**6)
    assert [reading.id for reading in together] == ["1", "0", "2"]  # the longest first
    apart = [batch for batch in batches(readings, 1)]
    assert [len(batch) for batch in apart] == [1, 1, 1]
    wanted = {question.id: naive(network, tokenizer, question) for question in QUESTIONS}
    for made in ([together], apart):
        for batch in made:
            for reading, values in zip(batch, log_probs(network, batch), strict=True):
                # A sum of tens of log-probabilities of up to 10 nats each.
                close = rounding(64, size=10)
                assert values == pytest.approx(wanted[reading.id], abs=len(values) * close)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answers_tokens_are_those_of_its_text(family: str) -> None:
    """BOS in front where the tokenizer has one, and no token of the question's in the answer."""
    tokenizer = tokenizer_of(family)
    for question in QUESTIONS:
        reading = reading_of(tokenizer, question, None)
        for choice, sequence, answer in zip(
            question.choices, reading.sequences, reading.answers, strict=True
        ):
            text = f"{question.context} {choice}"
            assert list(sequence) == tokenizer(text).input_ids
            assert list(sequence[:-answer]) == tokenizer(question.context).input_ids
        assert reading.characters == tuple(map(len, question.choices))


def test_what_is_too_long_loses_its_start_for_all_choices_alike(model: Path) -> None:
    tokenizer = load_tokenizer(model)
    question = QUESTIONS[1]
    whole = reading_of(tokenizer, question, None)
    cut = reading_of(tokenizer, question, whole.width - 2)
    assert (whole.truncated, cut.truncated) == (0, 2)
    assert [sequence[2:] for sequence in whole.sequences] == list(cut.sequences)
    assert reading_of(tokenizer, question, max(whole.answers)) == "a choice alone is too long"
    llama = tokenizer_of("llama_3")
    first = reading_of(llama, question, reading_of(llama, question, None).width - 1)
    assert {sequence[0] for sequence in first.sequences} == {llama.bos_token_id}


def test_a_token_of_both_sides_is_left_out(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fused(*_: object) -> None:
        raise choice_scoring.PlacementError("fused")

    monkeypatch.setattr(choice_scoring, "cut", fused)
    assert "text of question and choice" in reading_of(load_tokenizer(model), QUESTIONS[0], None)


def write_sets(folder: Path, number: int = 6) -> list[str]:
    rows = [
        {"question": f"What is {i} + 4?", "choices": [str(i + 4), "9", "12"], "answer": 0}
        for i in range(number)
    ]
    long = {"question": "1" * 40 + "?", "choices": ["1" * 200, "2"], "answer": 1}
    cut = {"question": "1" * 190 + "?", "choices": ["3", "2"], "answer": 1}
    (folder / "sums.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*rows, long, cut]))
    hella = [
        {"ctx": f"A man counts to {i}", "endings": ["and stops.", "2", "3"], "label": str(i % 3)}
        for i in range(5)
    ]
    (folder / "hella.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hella))
    return [f"sums={folder / 'sums.jsonl'}", f"hella={folder / 'hella.jsonl'}"]


@pytest.fixture(scope="module")
def moved(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as if it had been trained."""
    folder = tmp_path_factory.mktemp("moved") / "trained"
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    generator = torch.Generator().manual_seed(0)
    for name in sorted(weights):
        noise = torch.randn(weights[name].shape, generator=generator)
        weights[name] = weights[name] + 0.05 * noise * weights[name].std()
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def test_two_models_side_by_side_and_cut_off(
    model: Path, moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, sets = tmp_path / "out", write_sets(tmp_path)
    command = ["analyze", "likelihoods", f"base={model}", f"soft={moved}", "--questions", *sets]
    command += ["--max-length", "120", "--batch-tokens", "200", "--output", str(output)]
    assert main(command) == 0
    said = capsys.readouterr()
    tokenizer = load_tokenizer(model)
    lines = {
        name: [json.loads(line) for line in (output / name / "hella.scores.jsonl").open()]
        for name in ("base", "soft")
    }
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    question = ChoiceQuestion("1", "A man counts to 1", ("and stops.", "2", "3"), 1)
    assert lines["base"][1]["log_probs"] == pytest.approx(
        naive(network, tokenizer, question), abs=rounding(64, size=64)
    )
    table = {}
    for name, of in lines.items():
        assert [line["question"] for line in of] == list("01234")
        nll = [-line["log_probs"][line["right"]] / line["tokens"][line["right"]] for line in of]
        best = [line["right"] == int(np.argmax(line["log_probs"])) for line in of]
        scaled = [np.array(line["log_probs"]) / line["characters"] for line in of]
        by = [
            line["right"] == int(values.argmax()) for line, values in zip(of, scaled, strict=True)
        ]
        table[name] = (np.mean(nll), np.mean(best), np.mean(by))
    measures = ("nats a token", "likeliest", "likeliest by characters")
    with (output / "likelihoods.csv").open() as stream:
        found = {
            (row["benchmark"], row["condition"], row["measure"]): row
            for row in csv.DictReader(stream)
        }
    for name, values in table.items():
        for measure, value in zip(measures, values, strict=True):
            row = found["hella", name, measure]
            assert float(row["value"]) == pytest.approx(value)
            assert float(row["low"]) <= value <= float(row["high"])
    soft = found["hella", "soft", "nats a token"]
    assert float(soft["difference"]) == pytest.approx(table["soft"][0] - table["base"][0])
    assert found["hella", "base", "nats a token"]["difference"] == ""
    # What could not be read, or not whole, is said.
    note = "sums: 7 questions, "
    assert note in (output / "likelihoods.md").read_text()
    assert "1 left out (a choice alone is too long), 1 without their start" in said.out
    assert f"warning: {note}" in said.err
    # Cut off in the second set, and taken up again.
    before = {file: file.read_bytes() for file in output.rglob("*.scores.jsonl")}
    assert len(before) == 4
    file = output / "soft" / "sums.scores.jsonl"
    file.write_bytes(before[file][: len(before[file]) // 2])
    assert main(command) == 0
    assert {file: file.read_bytes() for file in before} == before
    file.write_text(before[file].decode().replace('"hash": "', '"hash": "x', 1))
    with pytest.raises(RunFolderError, match="line 1: question 0 was another one"):
        analyse([f"base={model}", f"soft={moved}"], sets, output, max_length=120, batch_tokens=200)
    file.write_text('{"question": "no"}\n')
    with pytest.raises(RunFolderError, match="line 1 is no score of a question that is asked"):
        analyse([f"base={model}", f"soft={moved}"], sets, output, max_length=120, batch_tokens=200)


def test_a_wrong_choice_like_the_right_one_is_said_and_one_question_has_no_interval(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "2 + 2?", "choices": ["4", " 4", "5"], "answer": 1}]
    file = tmp_path / "sums.jsonl"
    file.write_text(json.dumps(rows))
    file = file.rename(tmp_path / "sums.json")
    output = tmp_path / "out"
    analyse([f"a={model}", f"b={model}"], [f"sums={file}"], output)
    assert "1 with a wrong choice like the right one, which is a tie" in capsys.readouterr().err
    with (output / "likelihoods.csv").open() as stream:
        for row in csv.DictReader(stream):
            assert row["value"]
            assert (row["low"], row["high"]) == ("", "")
            assert bool(row["difference"]) == (row["condition"] == "b")
            assert not row["difference_low"]
            if row["measure"] == "likeliest":
                assert float(row["value"]) in (0.5, 0.0)
    page = (output / "likelihoods.md").read_text()
    assert "[" not in page
    assert "nan" not in page
    # What another program left in the scores is not taken for a score.
    scores = output / "b" / "sums.scores.jsonl"
    (line,) = (json.loads(text) for text in scores.open())
    for values in (line["log_probs"][:2], [float("nan")] * 3):
        scores.write_text(json.dumps(line | {"log_probs": values}) + "\n")
        with pytest.raises(RunFolderError, match=r"line 1 is no score.*log-probabilities are \["):
            analyse([f"a={model}", f"b={model}"], [f"sums={file}"], output)


def test_what_cannot_be_compared_is_refused(model: Path, moved: Path, tmp_path: Path) -> None:
    sets = write_sets(tmp_path)[1:]
    with pytest.raises(ConfigError, match="two models are called 'a'"):
        analyse([f"a={model}", f"a={moved}"], sets, tmp_path / "out")
    for name in ("likelihoods.md", "a/b", ".."):
        with pytest.raises(ConfigError, match="names no folder for its scores; name it"):
            analyse([f"{name}={model}"], sets, tmp_path / "out")
    with pytest.raises(ConfigError, match="two sets are called hella"):
        analyse([str(model)], [*sets, *sets], tmp_path / "out")
    with pytest.raises(ConfigError, match="no such folder"):
        analyse([f"a={tmp_path}/nothing"], sets, tmp_path / "out")
    analyse([f"a={model}"], sets, tmp_path / "out")
    with pytest.raises(RunFolderError, match="made with weights"):
        analyse([f"a={moved}"], sets, tmp_path / "out")
    with pytest.raises(RunFolderError, match="made with longest"):
        analyse([f"a={model}"], sets, tmp_path / "out", max_length=30)
    with pytest.raises(ConfigError, match="hella: none of 5 questions can be read: a choice alone"):
        analyse([f"a={model}"], sets, tmp_path / "short", max_length=2)


def test_what_is_read_otherwise_is_refused_before_anything_is_scored(
    model: Path, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = write_sets(tmp_path)
    models = [f"a={model}", f"b={moved}"]
    analyse([f"b={model}"], sets, tmp_path / "begun", max_length=120)

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(choice_scoring, "log_probs", never)
    with pytest.raises(RunFolderError, match=r"begun/b holds scores made with weights"):
        analyse(models, sets, tmp_path / "begun", max_length=120)
    short = tmp_path / "short"
    shutil.copytree(model, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 120}))
    with pytest.raises(RunFolderError, match=r"b 120, which makes question \d+ of sums another"):
        analyse([f"a={model}", f"b={short}"], sets, tmp_path / "out")
    other = tmp_path / "other"
    shutil.copytree(model, other)
    tokens = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(RunFolderError, match="read question 0 of sums in other tokens"):
        analyse([f"a={model}", f"b={other}"], sets, tmp_path / "out", max_length=120)
    assert not (tmp_path / "out").exists()


def test_a_tie_is_shared() -> None:
    """bfloat16 has many: to call each of them right would make every model better than it is."""
    tied = Reading("0", ((1, 2), (1, 3), (1, 4)), (1, 1, 1), (2, 1, 1), 1, 0)
    same = Reading("1", ((1, 2), (1, 2), (1, 4)), (1, 1, 1), (1, 1, 1), 1, 0)
    found = likelihoods._scores([tied, same], {"0": [-2, -2, -3], "1": [-1, -1.01, -3]}, {})
    assert found.likeliest_P.tolist() == [0.5, 0.5]
    assert found.by_characters_P.tolist() == [0.0, 0.5]
    assert found.tied == 1


def test_a_smaller_limits_questions_are_among_a_larger_ones() -> None:
    every = [ChoiceQuestion(str(i), "x", ("1", "2"), 0) for i in range(50)]
    few, more = chosen("a", every, 5), chosen("a", every, 20)
    assert (len(few), len(more)) == (5, 20)
    assert {q.id for q in few} < {q.id for q in more}
    assert [int(q.id) for q in more] == sorted(int(q.id) for q in more)
    assert chosen("a", every, None) == chosen("a", every, 99) == every
    assert {q.id for q in chosen("b", every, 5)} != {q.id for q in few}
