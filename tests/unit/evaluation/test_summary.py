"""Summary over steps: the table's numbers, what is left out, and inputs that cannot be used."""

import csv
import io
import json
import math

import pytest

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.evaluation.outputs import write_summary
from rsp_rl.evaluation.summary import read_summary, to_csv, to_markdown
from tests.unit.evaluation.made_runs import (
    make_evaluation,
    sample,
    write_manifest,
    write_samples,
)


@pytest.fixture
def folder(tmp_path):
    """Three steps of two benchmarks, with verdicts set by hand."""
    folder = make_evaluation(
        tmp_path, dict.fromkeys((0, 5, 10), 0.5), benchmarks={}, headline=("gsm8k", "aime24")
    )
    for step, right in ((0, 1), (5, 3), (10, 2)):
        write_samples(
            folder, step, "gsm8k", [sample(str(i), correct=i < right, tokens=8) for i in range(4)]
        )
        marks = [sample("a", i, correct=i < right) for i in range(4)]
        write_samples(folder, step, "aime24", [*marks, *(sample("b", i) for i in range(4))])
    return folder


def test_headline_by_hand(folder):
    summary = read_summary(folder)
    assert summary.benchmarks == ("gsm8k", "aime24")
    # gsm8k: 1/4, 3/4, 2/4; aime24: problem a as gsm8k, problem b all right.
    by_hand = {0: (0.25 + 0.625) / 2, 5: (0.75 + 0.875) / 2, 10: (0.5 + 0.75) / 2}
    assert {step: h.accuracy for step, h in summary.headline.items()} == pytest.approx(by_hand)
    assert summary.peak_step == 5
    # Standard errors at step 0: sqrt(3/16 / 4) and |1 - 1/4| / 2 / sqrt(2); halved by the mean.
    error = math.hypot(math.sqrt(3 / 64), 0.375 / math.sqrt(2)) / 2
    assert summary.headline[0].high == pytest.approx(by_hand[0] + 1.96 * error)
    assert summary.headline[0].low == pytest.approx(by_hand[0] - 1.96 * error)


def test_markdown(folder):
    table = [line for line in to_markdown(read_summary(folder)).split("\n") if line[:1] == "|"]
    assert table == [
        "| benchmark | step 0 | step 5 | step 10 |",
        "| --- | --: | --: | --: |",
        "| gsm8k | 25.00 | **75.00** | 50.00 |",
        "| aime24 (avg@4) | 62.50 | **87.50** | 75.00 |",
        "| headline (mean of 2) | 43.75 | **81.25** | 62.50 |",
    ]


def test_csv(folder):
    rows = list(csv.DictReader(io.StringIO(to_csv(read_summary(folder)))))
    assert [(row["step"], row["benchmark"]) for row in rows] == [
        (step, name) for step in ("0", "5", "10") for name in ("gsm8k", "aime24", "headline")
    ]
    assert {row["benchmark"]: row["pass_at_n"] for row in rows[:3]} == {
        "gsm8k": "0.25",
        "aime24": "1.0",
        "headline": "",
    }
    assert float(rows[0]["tokens_mean"]) == 8


def test_a_partial_step_is_named_and_has_no_headline(folder):
    folder.step(5).metrics("aime24").unlink()
    summary = write_summary(folder)
    assert list(summary.headline) == [0, 10]
    assert summary.missing == {5: ("aime24",)}
    text = folder.summary_markdown.read_text()
    assert "Step 5 has no headline: aime24 not done." in text
    assert "| headline (mean of 2) | 43.75 | – | **62.50** |" in text


def test_files_are_written_even_without_any_headline(folder):
    for step in folder.steps().values():
        step.metrics("aime24").unlink()
    summary = write_summary(folder)
    assert summary.peak_step is None
    for file in (folder.summary_csv, folder.summary_markdown):
        assert "gsm8k" in file.read_text()
    for name in ("headline", "benchmarks", "response_length"):
        assert folder.plot(name).read_bytes().startswith(b"\x89PNG")
    assert not list(folder.root.glob(".*"))


def test_a_benchmark_outside_the_headline_comes_after_it(folder):
    write_samples(folder, 5, "amc23", [sample()])
    assert read_summary(folder).benchmarks == ("gsm8k", "aime24", "amc23")
    assert "| amc23 | – | **100.00** | – |" in to_markdown(read_summary(folder))


def test_a_step_that_has_just_begun_is_left_out(folder):
    folder.step(15).root.mkdir()
    assert list(read_summary(folder).metrics) == [0, 5, 10]


def test_nothing_evaluated(tmp_path):
    folder = make_evaluation(tmp_path, {0: 0.5}, benchmarks={})
    with pytest.raises(RunFolderError, match="no finished benchmark"):
        read_summary(folder)


def test_steps_under_different_protocols(folder):
    write_manifest(folder, 5, fingerprint="beef")
    with pytest.raises(RunFolderError, match=r"step_5/how\.json and .*step_10/how\.json differ"):
        read_summary(folder)


def test_damaged_files_are_named(folder):
    folder.step(0).metrics("gsm8k").write_text('{"accuracy": 0.5}')
    with pytest.raises(RunFolderError, match=r"step_0/gsm8k\.metrics\.json lacks 'accuracy_high'"):
        read_summary(folder)
    folder.step(0).metrics("gsm8k").write_text('{"accuracy": ')
    with pytest.raises(RunFolderError, match=r"step_0/gsm8k\.metrics\.json"):
        read_summary(folder)


def test_manifest_must_be_there_and_whole(folder):
    folder.step(0).manifest.write_text(json.dumps({"fingerprint": "f00d"}))
    with pytest.raises(RunFolderError, match=r"step_0/how\.json lacks"):
        read_summary(folder)
    folder.step(0).manifest.unlink()
    with pytest.raises(RunFolderError, match=r"step_0/how\.json is missing"):
        read_summary(folder)


def test_steps_with_the_same_weights_are_an_error(folder):
    """As all LoRA steps had that verl's merger made; of evaluations of before, files tell."""
    for name in ("values", "weights"):
        before = {step: folder.step(step).manifest.read_text() for step in (5, 10)}
        for step, text in before.items():
            folder.step(step).manifest.write_text(json.dumps(json.loads(text) | {name: "f00d"}))
        with pytest.raises(RunFolderError, match=r"steps 5 and 10 of .* have the same weights"):
            read_summary(folder)
        for step, text in before.items():
            folder.step(step).manifest.write_text(text)
    read_summary(folder)


def test_prompts_unlike_trainings_are_said_with_the_table(folder):
    assert "Warning" not in to_markdown(read_summary(folder))
    manifest = json.loads(folder.step(5).manifest.read_text())
    manifest["unlike_training"] = ["template abel does not ask as it did"]
    folder.step(5).manifest.write_text(json.dumps(manifest))
    summary = read_summary(folder)
    assert summary.unlike_training == {5: ("template abel does not ask as it did",)}
    assert "- Warning, step 5: template abel does not ask as it did." in to_markdown(summary)
