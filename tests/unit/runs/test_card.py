"""A model's card: what the run's files say, "not on record" for the rest, a head that parses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from pyarrow import parquet

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json, write_json
from rsp_rl.cli import main
from rsp_rl.evaluation.card_scores import evaluated
from rsp_rl.models.front_matter import read_front_matter
from rsp_rl.models.weights import values_digest
from rsp_rl.runs.card import CARD, MARK, Evaluated, Score, Scores, write_card
from rsp_rl.runs.checkpoints import TRACKER
from rsp_rl.runs.folder import RunFolder
from rsp_rl.tiny import make_tiny_model
from rsp_rl.training.configs import compose_config
from tests.unit.evaluation.made_runs import make_evaluation
from tests.unit.runs.made_rollouts import write_groups

GAPS = {"rsp/logprob_gap_mean": 2e-6, "rsp/logprob_gap_max": 3e-5, "timing_s/step": 1.0}
COMPARED = {
    **{"rsp/compared": 288.0, "rsp/compared_gap_mean": 2e-6, "rsp/forgotten_gap_mean": 0.5},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", steps=0, threads=1)


@pytest.fixture
def run(tmp_path: Path, model: Path) -> RunFolder:
    """A run of three steps whose checkpoint has its model."""
    folder = RunFolder(tmp_path / "runs" / "my_run")
    data = tmp_path / "sums" / "train.parquet"
    data.parent.mkdir()
    parquet.write_table(pa.table({"data_source": ["sums", "more", "sums"]}), data)
    config = compose_config(
        "dapo_rsp",
        [
            *(f"actor_rollout_ref.model.path={model}", f"run_dir={folder.root}"),
            f"data.train_files=[{data},{tmp_path / 'gone.parquet'}]",
        ],
    )
    (folder.root / "config").mkdir(parents=True)
    OmegaConf.save(config, folder.root / "config" / "config.yaml")
    write_json(folder.settings, {**OmegaConf.to_container(config.rsp), "length": 8})
    steps = [
        {"step": 0, "data": {"val-core/sums/acc/mean@1": 0.25}},
        {"step": 1, "data": {**GAPS, **COMPARED, "critic/score/mean": 0.5}},
        {"step": 3, "data": {**GAPS, "critic/score/mean": 0.5, "val-core/sums/acc/mean@1": 0.5}},
    ]
    folder.metrics.write_text("".join(json.dumps(step) + "\n" for step in steps))
    with folder.record_start():
        folder.note_last_step(5)
    kept = folder.checkpoints / "global_step_3" / "actor" / "huggingface"
    shutil.copytree(model, kept)
    (folder.checkpoints / TRACKER).write_text("3")
    return folder


def checkpoint(run: RunFolder) -> Path:
    return run.checkpoints / "global_step_3"


def card(run: RunFolder, scores: Evaluated | None = None) -> str:
    folder = checkpoint(run) / "actor" / "huggingface"
    return write_card(run, checkpoint(run), folder, scores or Evaluated()).read_text()


def row(text: str, name: str) -> str:
    (found,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return found.removeprefix(f"| {name} | ").removesuffix(" |")


def head(run: RunFolder) -> dict:
    found = read_front_matter(checkpoint(run) / "actor" / "huggingface" / CARD)
    assert found is not None
    return found


SCORES = Evaluated(
    [
        Scores(
            "quick",
            "template a | b, <b>greedy</b>",
            [
                Score("gsm8k", 1319, 4, (0.5, 0.4, 0.6), (0.25, 0.2, 0.3)),
                Score("x", 2, 1, (1, 1, 1)),
            ],
            [{"versions": {"vllm": "0.28.0"}, "commit": "c0ffee"}] * 2,
        )
    ],
    ["other, whose step 3 is not of these weights."],
)


def test_what_a_card_says_of_the_training(run: RunFolder, tmp_path: Path) -> None:
    text = card(run)
    assert "\n# my_run\n" in text
    assert "after 3 steps of reinforcement learning, with random soft prompts" in text
    assert row(text, "soft prompts").startswith("L = 8, law gaussian, position suffix")
    assert row(text, "thoughts") == "none"
    assert row(text, "objective").startswith("advantages grpo, loss vanilla, clip below 0.2, clip")
    assert row(text, "data") == (
        "sums/train.parquet, 3 rows of more, sums; "
        f"{tmp_path.name}/gone.parquet, not on record rows"
    )
    assert (row(text, "steps"), row(text, "weights")) == ("3 of 5", "not on record")
    assert "most 2e-06 nats in a step's mean and 3e-05 nats for one token, over 2 steps" in text
    assert "Over 288 positions of step 1 it was 2e-06, and would have been 0.5" in text
    assert "25.00% at step 0, 50.00% at step 3" in text
    assert "- Training: python 3." in text
    assert "rsp-rl " in text
    assert "licence is not on record" in text
    assert str(tmp_path) not in text  # it leaves the machine


def test_a_card_without_scores_says_so(run: RunFolder) -> None:
    assert "Not on record: no evaluation of this step" in card(run)
    assert "model-index" not in head(run)


def test_scores_have_intervals_and_what_they_were_made_with(run: RunFolder) -> None:
    text = card(run, SCORES)
    assert "| gsm8k | 50.00 \\[40.00, 60.00\\] | 25.00 \\[20.00, 30.00\\] | 1,319 | 4 |" in text
    assert "| x | 100.00 \\[100.00, 100.00\\] | not on record | 2 | 1 |" in text
    assert "template a \\| b, &lt;b>greedy&lt;/b>" in text
    assert "- Left out: other, whose step 3 is not of these weights." in text
    assert text.count("vllm 0.28.0; commit of rsp-rl: c0ffee") == 1


def test_the_head_is_what_the_hub_takes(run: RunFolder) -> None:
    text = card(run, SCORES)
    found = head(run)
    assert list(found) == ["library_name", "pipeline_tag", "tags", "model-index"]
    assert found["tags"] == ["rsp-rl", "verl", "reinforcement-learning", "random-soft-prompts"]
    parsed = ModelCard(text)
    assert [(one.dataset_name, one.metric_value) for one in parsed.data.eval_results] == [
        *(("gsm8k", 50.0), ("x", 100)),
    ]
    assert parsed.text.lstrip().startswith(MARK)


def test_a_base_models_name_and_licence_if_they_are_on_record(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rsp_rl.models.origin import Origin

    monkeypatch.setattr("rsp_rl.runs.card.origin_of", lambda _: Origin("Q of it", "O/Q", "mit"))
    text = card(run)
    assert {name: head(run)[name] for name in ("base_model", "license")} == {
        **{"base_model": "O/Q", "license": "mit"},
    }
    assert "The base model's card names `mit`" in text


def test_relative_paths_are_where_the_training_was_started(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies under the same name where the card is written."""
    started, elsewhere = tmp_path / "started", tmp_path / "elsewhere"
    for folder, licence, rows in ((started, "mit", 2), (elsewhere, "other", 7)):
        (folder / "models" / "base").mkdir(parents=True)
        (folder / "models" / "base" / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
        (folder / "data").mkdir()
        (folder / "data" / "train.jsonl").write_text("{}\n" * rows)
    file = run.root / "config" / "config.yaml"
    config = OmegaConf.load(file)
    OmegaConf.update(config, "actor_rollout_ref.model.path", "models/base")
    OmegaConf.update(config, "data.train_files", "data/train.jsonl")
    OmegaConf.save(config, file)
    launched = {"hydra": {"runtime": {"cwd": str(started)}}}
    OmegaConf.save(OmegaConf.create(launched), file.with_name("hydra.yaml"))
    monkeypatch.chdir(elsewhere)
    text = card(run)
    assert head(run)["license"] == "mit"
    assert row(text, "data") == "data/train.jsonl, 2 rows"
    assert str(tmp_path) not in text


def test_a_config_that_names_no_model(run: RunFolder) -> None:
    """It is not the folder that one happens to be in."""
    file = run.root / "config" / "config.yaml"
    config = OmegaConf.load(file)
    OmegaConf.update(config, "actor_rollout_ref.model.path", None)
    OmegaConf.save(config, file)
    assert "Base model: not on record." in card(run)


def test_a_run_with_a_law_and_without_soft_prompts(run: RunFolder) -> None:
    write_json(run.settings, read_json(run.settings) | {"length": 0})
    write_json(run.law, {"name": "multiplex", "k": 3, "end": ["</think>"]})
    text = card(run)
    assert "with thoughts of the law multiplex." in text
    assert row(text, "soft prompts") == "none"
    assert row(text, "thoughts") == 'multiplex: k 3, end \\["&lt;/think>"\\]'
    assert head(run)["tags"][-1] == "law-multiplex"
    assert "asked without them" not in text


def test_a_run_with_noise_on_the_question(run: RunFolder) -> None:
    noise = {"length": 0, "law": "question_noise", "scale": 5.0}
    write_json(run.settings, read_json(run.settings) | noise)
    text = card(run)
    assert "learning, with noise on the questions of its rollouts." in text
    assert row(text, "soft prompts") == "law question_noise, mode independent, scale 5.0"
    assert "question_noise" in head(run)["tags"]
    assert "random-soft-prompts" not in head(run)["tags"]
    assert "Noise was for training; the model is asked without it." in text
    write_json(run.settings, read_json(run.settings) | {"scale": 0.0})
    assert row(card(run), "soft prompts") == "none"


def test_a_law_whose_package_is_gone_may_have_added_noise(run: RunFolder) -> None:
    gone = {"length": 0, "law": "gone", "scale": 5.0}
    write_json(run.settings, read_json(run.settings) | gone)
    text = card(run)
    assert "learning, with what the law gone may have added to questions, which is not on" in text
    assert row(text, "soft prompts").startswith("not on record: law gone, scale 5.0")
    write_json(run.settings, read_json(run.settings) | {"law": "gaussian"})
    assert "learning, without soft prompts." in card(run)
    write_json(run.settings, read_json(run.settings) | gone | {"length": 8})  # it inserted them
    assert row(card(run), "soft prompts").startswith("L = 8, law gone")


def test_a_run_of_before_says_not_on_record(run: RunFolder) -> None:
    (run.root / "starts.jsonl").write_text('{"begun": 1.0, "ended": 2.0}\n')
    (run.root / "last_step.txt").unlink()
    run.metrics.write_text("")
    text = card(run)
    assert "- Training: not on record" in text
    assert row(text, "steps") == "3"
    assert "actor|: not on record." in text


def test_somebodys_own_card_stays(run: RunFolder) -> None:
    card(run)
    card(run, SCORES)  # one that was written before is written again
    file = checkpoint(run) / "actor" / "huggingface" / CARD
    file.write_text("# Mine\n")
    with pytest.raises(ConfigError, match="was not written by rsp-rl report --card"):
        card(run)
    assert file.read_text() == "# Mine\n"


def test_a_config_that_is_missing_or_damaged(run: RunFolder) -> None:
    file = run.root / "config" / "config.yaml"
    file.write_text("data: {train_files: '${nowhere:}'}")
    with pytest.raises(RunFolderError, match=r"data\.train_files cannot be read"):
        card(run)
    for damaged in ("a: [", "- a"):
        file.write_text(damaged)
        with pytest.raises(RunFolderError, match=r"config\.yaml is damaged"):
            card(run)
    file.unlink()
    with pytest.raises(RunFolderError, match=r"holds no config/config\.yaml"):
        card(run)


# Its scores.


def test_scores_are_of_the_models_weights_alone(run: RunFolder) -> None:
    made = make_evaluation(run.root, {0: 0.3, 3: 0.6}, benchmarks={"gsm8k": (12, 2)})
    folder = checkpoint(run) / "actor" / "huggingface"
    found = evaluated(run, 3, folder)
    assert found == Evaluated([], ["made_up, whose step 3 is not of these weights."])
    manifest = made.step(3).manifest
    write_json(manifest, read_json(manifest) | {"values": values_digest(folder)})
    (scores,) = evaluated(run, 3, folder).scores
    assert (scores.protocol, scores.how) == ("made_up", "Template qwen-boxed, no soft prompt")
    manifest_now = read_json(manifest)
    for rsp, told in (
        ({"length": 8}, "soft prompt of L = 8"),
        ({"length": 0, "law": "question_noise", "scale": 5.0}, "noise on the question, alpha = 5"),
        ({"length": 0, "law": "question_noise", "scale": 0.0}, "no soft prompt"),
        ({"length": 0, "law": "gone", "scale": 5.0}, "law gone, which .* not know, scale 5"),
    ):
        protocol = manifest_now["protocol"] | {"rsp": rsp}
        write_json(manifest, manifest_now | {"protocol": protocol})
        assert re.fullmatch(f"Template qwen-boxed, {told}", evaluated(run, 3, folder).scores[0].how)
    metrics = read_json(made.step(3).metrics("gsm8k"))
    (score,) = scores.rows
    assert (score.problems, score.samples) == (12, 2)
    assert score.accuracy == tuple(metrics[f"accuracy{end}"] for end in ("", "_low", "_high"))
    assert score.before is not None
    assert score.before[0] == read_json(made.step(0).metrics("gsm8k"))["accuracy"]
    left_out = evaluated(run, 2, folder).left_out
    assert left_out == ["made_up, which has no finished benchmark of step 2."]


# The command.


def test_report_writes_page_and_card_and_push_takes_them(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    write_groups(run, 3, ["+-"])
    assert main(["report", str(run.root), "--card"]) == 0
    printed = capsys.readouterr().out
    merged = checkpoint(run) / "actor" / "huggingface"
    assert f"rollouts    {run.rollouts_page}\n" in printed
    assert f"card        {merged / CARD}\n" in printed
    assert main(["push", str(merged), "--repo", "me/mine", "--dry-run"]) == 0
    assert "dry run: nothing was sent" in capsys.readouterr().out


def test_report_without_samples_and_without_a_card(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run.root)]) == 0
    printed = capsys.readouterr().out
    assert f"rollouts    no samples in {run.train_samples}\n" in printed
    assert "card" not in printed
    assert not (checkpoint(run) / "actor" / "huggingface" / CARD).exists()
