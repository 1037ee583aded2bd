"""A training learns, goes on as it was after a kill, and is the same in two processes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file

from rsp_rl.basics.errors import ConfigError, RunBrokenError, RunFolderError
from rsp_rl.data import arithmetic_steps
from rsp_rl.data.step_problems import StepProblem
from rsp_rl.latent import training
from rsp_rl.latent.epochs import epoch_rows
from rsp_rl.latent.folder import CLASSIFIER_FILE, load_thinker
from rsp_rl.latent.problem_tokens import tokenize
from rsp_rl.latent.processes import Place
from rsp_rl.latent.run_state import METRICS_FILE, MODEL, claim, finished_model
from rsp_rl.latent.settings import CLASSIFIER, Settings
from rsp_rl.latent.training import train

SETTINGS = Settings(
    max_stage=2, epochs_per_stage=1, epochs=4, learning_rate=1e-3, batch_size=16,
    micro_batch_size=8, validation_limit=8, max_new_tokens=8, save_steps=2, uniform_stages=0.3,
)  # fmt: skip


class Killed(BaseException):
    """Ends a training as SIGKILL would: nothing is written after it."""


def run(model, problems, folder, settings=SETTINGS, described=None):
    return train(model, problems, problems[:8], settings, folder, described or {"train": "t.jsonl"})


def weights(folder):
    return load_file(folder / "model.safetensors")


def metrics(folder, *, timed=False):
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    return lines if timed else [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(gpt2, step_problems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(gpt2, step_problems, folder)
    return folder


def test_the_loss_falls_and_the_stages_go_on(whole):
    steps = [line for line in metrics(whole) if "loss" in line]
    assert [line["stage"] for line in steps] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert [line["step"] for line in steps] == list(range(1, 17))
    assert steps[3]["loss"] < steps[0]["loss"]
    assert "thought_norm" in steps[-1]


@pytest.mark.parametrize("at", [1, 2, 6, 9, 15])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    at, whole, gpt2, step_problems, tmp_path, monkeypatch
):
    step, done = training._Training.step, 0

    def dies(self, *args):
        nonlocal done
        if done == at:
            raise Killed
        done += 1
        return step(self, *args)

    monkeypatch.setattr(training._Training, "step", dies)
    with pytest.raises(Killed):
        run(gpt2, step_problems, tmp_path)
    monkeypatch.undo()
    run(gpt2, step_problems, tmp_path)
    expected, found = weights(whole / MODEL), weights(tmp_path / MODEL)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert metrics(tmp_path) == metrics(whole)


def test_muon_moves_the_blocks_and_goes_on_after_a_kill(gpt2, step_problems, tmp_path, monkeypatch):
    settings = replace(SETTINGS, optimizer="muon", epochs=2)
    run(gpt2, step_problems, tmp_path / "whole", settings)
    losses = [line["loss"] for line in metrics(tmp_path / "whole") if "loss" in line]
    assert losses[3] < losses[0]
    step, done = training._Training.step, 0

    def dies(self, *args):
        nonlocal done
        if done == 3:
            raise Killed
        done += 1
        return step(self, *args)

    monkeypatch.setattr(training._Training, "step", dies)
    with pytest.raises(Killed):
        run(gpt2, step_problems, tmp_path / "cut", settings)
    monkeypatch.undo()
    run(gpt2, step_problems, tmp_path / "cut", settings)
    whole, cut = (
        weights(next((tmp_path / name).glob("checkpoints/*/actor/huggingface")))
        for name in ("whole", "cut")
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_finished_run_trains_no_more(whole, gpt2, step_problems, monkeypatch):
    monkeypatch.setattr(training._Training, "step", lambda *_: pytest.fail("it trains"))
    assert run(gpt2, step_problems, whole) == whole / MODEL


def test_a_folder_of_other_settings_or_data_is_refused(whole, gpt2, step_problems):
    with pytest.raises(RunFolderError, match=r"learning_rate=0\.001, not 0\.01"):
        run(gpt2, step_problems, whole, replace(SETTINGS, learning_rate=0.01))
    with pytest.raises(RunFolderError, match=r"train='t\.jsonl', not 'other\.jsonl'"):
        run(gpt2, step_problems, whole, described={"train": "other.jsonl"})


def test_other_problems_in_a_file_of_the_same_name_are_refused(whole, gpt2, step_problems):
    other = arithmetic_steps.generate("train", 64, 1)
    with pytest.raises(RunFolderError, match=r"problems_digest='\w+', not"):
        train(gpt2, other, step_problems[:8], SETTINGS, whole, {"train": "t.jsonl"})
    with pytest.raises(RunFolderError, match=r"validation_digest='\w+', not"):
        train(gpt2, step_problems, other[:8], SETTINGS, whole, {"train": "t.jsonl"})


def test_micro_batches_and_recomputing_change_rounding_alone(whole, gpt2, step_problems, tmp_path):
    short = replace(SETTINGS, epochs=1, first_epoch=0)
    for name, settings in {
        "micro": replace(short, micro_batch_size=3),
        "whole": short,
        "again": replace(short, recompute=True),
    }.items():
        run(gpt2, step_problems, tmp_path / name, settings)
    losses = {
        name: [line["loss"] for line in metrics(tmp_path / name) if "loss" in line]
        for name in ("micro", "whole", "again")
    }
    assert losses["micro"] == pytest.approx(losses["whole"], rel=1e-4)
    assert losses["again"] == pytest.approx(losses["whole"], rel=1e-4)


def test_the_model_that_is_kept_is_the_best_of_the_last_stage(
    gpt2, step_problems, tmp_path, monkeypatch
):
    accuracies = iter([0.9, 0.8, 0.7, 0.1, 0.3, 0.2])
    monkeypatch.setattr(training._Training, "accuracy", lambda *_: next(accuracies))
    kept = []
    keep = training._Training.keep
    monkeypatch.setattr(
        training._Training,
        "keep",
        lambda self: (kept.append(self.state.best_epoch), keep(self)),
    )
    run(gpt2, step_problems, tmp_path, replace(SETTINGS, epochs=6))
    assert kept == [3, 4]  # the stages before count nothing, nor what is worse


def test_icot_keeps_no_model_that_still_writes_its_steps(
    gpt2, step_problems, tmp_path, monkeypatch
):
    accuracies = iter([0.9, 0.8, 0.1, 0.2, 0.1])
    monkeypatch.setattr(training._Training, "accuracy", lambda *_: next(accuracies))
    kept = []
    keep = training._Training.keep
    monkeypatch.setattr(
        training._Training,
        "keep",
        lambda self: (kept.append(self.state.best_epoch), keep(self)),
    )
    settings = replace(
        SETTINGS, method="icot", uniform_stages=0.0, epochs=5, icot_tokens_per_epoch=12
    )
    run(gpt2, step_problems, tmp_path, settings)
    # The longest chain has 24 tokens, which are gone from the third epoch on.
    assert kept == [2, 3]


def test_a_classifier_learns_when_thoughts_end(gpt2, step_problems, tmp_path):
    settings = replace(
        SETTINGS,
        ends=CLASSIFIER, pad_thoughts=False, epochs=8, max_stage=3, classifier_learning_rate=0.1,
    )  # fmt: skip
    run(gpt2, step_problems, tmp_path, settings)
    thinker = load_thinker(tmp_path / MODEL)
    assert thinker.thinking.ends == CLASSIFIER
    assert thinker.classifier.weight.abs().sum().item() > 0


@pytest.mark.parametrize("bound", [None, 0.05])
def test_a_classifier_moves_no_weight_of_the_model(bound, gpt2, step_problems, tmp_path):
    """It reads hidden states and nothing flows back, not by the length of its gradient either."""
    base = replace(SETTINGS, ends=CLASSIFIER, pad_thoughts=False, epochs=2, max_grad_norm=bound)
    run(gpt2, step_problems, tmp_path / "slow", base)
    run(gpt2, step_problems, tmp_path / "fast", replace(base, classifier_learning_rate=1.0))
    slow, fast = (
        weights(next((tmp_path / name).glob("checkpoints/*/actor/huggingface")))
        for name in ("slow", "fast")
    )
    assert all(torch.equal(slow[name], fast[name]) for name in slow)


def test_a_model_that_began_with_a_classifier_is_rid_of_it(gpt2, step_problems, tmp_path):
    ends = replace(SETTINGS, ends=CLASSIFIER, pad_thoughts=False, epochs=3, uniform_stages=0.0)
    run(gpt2, step_problems, tmp_path / "first", ends)
    run(tmp_path / "first" / MODEL, step_problems, tmp_path / "second", replace(SETTINGS, epochs=3))
    assert (tmp_path / "first" / MODEL / CLASSIFIER_FILE).is_file()
    assert not (tmp_path / "second" / MODEL / CLASSIFIER_FILE).exists()


def test_markers_begin_anew_where_the_first_training_had_none(
    gpt2, step_problems, tmp_path, monkeypatch
):
    """A CoT model never reads them, and its output layer unlearns them."""
    problems = [
        StepProblem(p.question, tuple(f"<<{step}>>" for step in p.steps), p.answer)
        for p in step_problems
    ]
    short = replace(SETTINGS, epochs=1, uniform_stages=0.0, learning_rate=1e-2)
    run(gpt2, problems, tmp_path / "cot", replace(short, method="cot"))
    begun = []

    def dies(self, *_):
        begun.append(self.thinker)
        raise Killed

    monkeypatch.setattr(training._Training, "step", dies)
    with pytest.raises(Killed):
        run(tmp_path / "cot" / MODEL, problems, tmp_path / "coconut", short)
    thinker = begun[0]
    table = thinker.model.get_input_embeddings().weight
    source = thinker.tokenizer.encode("<<", add_special_tokens=False)[0]
    for marker in asdict(thinker.markers).values():
        assert torch.equal(table[marker], table[source])


def test_a_warm_up_may_be_longer_than_an_epoch(gpt2, step_problems, tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(training.Optimizers, "step", lambda _, share: shares.append(share))
    settings = replace(SETTINGS, reset_optimizer="stage", epochs_per_stage=2, warmup_steps=5)
    run(gpt2, step_problems, tmp_path, settings)
    ramp = [(n + 1) / 6 for n in range(6)] + [1.0, 1.0]
    assert shares == pytest.approx(ramp * 2)  # two stages of two epochs of four steps


def test_of_several_processes_none_moves_what_has_no_loss(gpt2, step_problems, tmp_path):
    """At stage 0 the decoder of SIM-CoT reads nothing; weight decay would still shrink it."""
    settings = replace(SETTINGS, step_decoder=1.0, weight_decay=0.5, uniform_stages=0.0)
    thinker = load_thinker(gpt2)
    place = Place(0, 2, torch.device("cpu"))
    one = training._Training(thinker, settings, tmp_path, place, training._State(0))
    before = {name: value.clone() for name, value in one.decoder.state_dict().items()}
    tokens = tokenize(step_problems[:16], thinker.tokenizer)
    one.step(epoch_rows(tokens, settings, thinker.markers, 0), 0, 0)
    after = one.decoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_training_that_comes_apart_ends(gpt2, step_problems, tmp_path):
    with pytest.raises(RunBrokenError, match="learning_rate"):
        run(gpt2, step_problems, tmp_path, replace(SETTINGS, learning_rate=1e30))


def test_the_longest_stage_may_be_one_in_the_middle(gpt2, step_problems, tmp_path):
    """A step of 151 tokens, and 100 thoughts a step: only the stage that has both is too long."""
    problems = [StepProblem(p.question, ("1", "0" * 150), p.answer) for p in step_problems]
    settings = replace(SETTINGS, uniform_stages=0.0, thoughts_per_step=100)
    with pytest.raises(ConfigError, match=r"with 100 thoughts .* the model's context 256"):
        run(gpt2, problems, tmp_path, settings)


def test_what_the_context_does_not_hold_is_said_before_a_step(gpt2, step_problems, tmp_path):
    with pytest.raises(ConfigError, match=r"t\.jsonl, problem \d+: .* the model's context 256"):
        run(gpt2, step_problems, tmp_path, replace(SETTINGS, thoughts_per_step=300))


def test_an_answer_that_the_context_does_not_hold_is_said_before_a_step(
    gpt2, step_problems, tmp_path
):
    with pytest.raises(ConfigError, match=r"validation file, problem \d+: .* 250 tokens of answer"):
        run(gpt2, step_problems, tmp_path, replace(SETTINGS, max_new_tokens=250))
    assert not (tmp_path / METRICS_FILE).exists()


def test_a_model_is_there_though_a_kill_came_between_two_moves(tmp_path, monkeypatch):
    with finished_model(tmp_path) as folder:
        (folder / "text").write_text("old")
    move = os.replace

    def dies(source, target):
        if target == tmp_path / MODEL:
            raise Killed
        move(source, target)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(Killed), finished_model(tmp_path) as folder:
        (folder / "text").write_text("new")
    monkeypatch.undo()
    claim(tmp_path, {}, {})
    assert (tmp_path / MODEL / "text").read_text() == "old"


def test_a_finished_run_without_its_model_says_so(gpt2, step_problems, tmp_path):
    run(gpt2, step_problems, tmp_path, replace(SETTINGS, epochs=1))
    shutil.rmtree(tmp_path / MODEL)
    with pytest.raises(RunFolderError, match="its training is done, and its model is gone"):
        run(gpt2, step_problems, tmp_path, replace(SETTINGS, epochs=1))


def test_a_damaged_checkpoint_names_a_way_out_of_this_command(gpt2, step_problems, tmp_path):
    run(gpt2, step_problems, tmp_path, replace(SETTINGS, epochs=1))
    [file] = (tmp_path / "checkpoints").glob("*/actor/training.pt")
    file.write_bytes(b"half")
    with pytest.raises(RunFolderError, match=r"training\.pt has 4 bytes of \d+.*another --output"):
        run(gpt2, step_problems, tmp_path, replace(SETTINGS, epochs=1))
