"""Trainings learn, go on as they were after a kill, and end where a loss is no number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rsp_rl.basics.errors import ConfigError, RunBrokenError, RunFolderError
from rsp_rl.data.step_problems import StepProblem
from rsp_rl.latent.ccot import training as ccot_training
from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.run import train
from rsp_rl.latent.ccot.saved import TENSORS_FILE, load, read
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.ccot.training import CcotTrainer
from rsp_rl.latent.run_folder import CCOT_FILE, METRICS_FILE, MODEL
from rsp_rl.latent.scratch import make_model
from rsp_rl.models.folder import LATENT_FILE
from rsp_rl.models.weights import weights_digest

SETTINGS = CcotSettings(
    ratio=0.1, layer=1, generator_rank=4, decoder_rank=4, learning_rate=1e-2, batch_size=16,
    epochs_per_layer=1, decoder_epochs=1, joint_epochs=1, max_new_tokens=8,
)  # fmt: skip

#: Of 64 problems, 16 a step: four of layer 1, of layer 2, of psi, and of both.
STEPS = 16


class Killed(BaseException):
    """Ends a training as SIGKILL would: nothing is written after it."""


def run(
    model: Path,
    problems: Sequence[StepProblem],
    folder: Path,
    settings: CcotSettings = SETTINGS,
    **described: Any,
) -> Path:
    of = {"model": str(model), "weights": weights_digest(model), "train": "t.jsonl", **described}
    return train(model, problems, settings, folder, of, save_steps=3)


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    return [{name: line[name] for name in line if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def model(step_problems: list[StepProblem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"architecture": "qwen2", "layers": 2, "hidden_size": 32, "heads": 2, "context": 256}
    return make_model(tmp_path_factory.mktemp("qwen2"), step_problems, **sizes)


@pytest.fixture(scope="module")
def whole(
    model: Path, step_problems: list[StepProblem], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run(model, step_problems, folder)
    return folder


def test_phases_and_losses_by_step(whole: Path) -> None:
    lines = metrics(whole)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [(line["phase"], line["layer"]) for line in lines[::4]] == [
        *(("generator", 1), ("generator", 2), ("decoder", 0), ("joint", 0))
    ]
    for first, name in ((0, "state_error"), (4, "state_error"), (8, "answer_loss")):
        assert lines[first + 3][name] < lines[first][name]
    assert lines[15]["end_loss"] < lines[8]["end_loss"]


@pytest.mark.parametrize("at", [1, 3, 4, 7, 9, 12, 14])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    at: int,
    whole: Path,
    model: Path,
    step_problems: list[StepProblem],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before, at and after a checkpoint and the change of a phase."""
    step = CcotTrainer.step

    def dies(self: CcotTrainer) -> dict[str, Any]:
        if self.steps_done == at:
            raise Killed
        return step(self)

    monkeypatch.setattr(CcotTrainer, "step", dies)
    with pytest.raises(Killed):
        run(model, step_problems, tmp_path)
    assert not (tmp_path / MODEL).exists()
    monkeypatch.undo()
    run(model, step_problems, tmp_path)
    expected, found = (load_file(f / MODEL / TENSORS_FILE) for f in (whole, tmp_path))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert metrics(tmp_path) == metrics(whole)


def test_a_checkpoint_is_whole_or_not_there(
    model: Path, step_problems: list[StepProblem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def dies(content: dict[str, Any], file: Path) -> None:
        if content["steps_done"] == 6:
            file.write_bytes(b"half")
            raise Killed
        save(content, file)

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(Killed):
        run(model, step_problems, tmp_path)
    monkeypatch.undo()
    steps: list[int] = []
    step = CcotTrainer.step
    monkeypatch.setattr(
        CcotTrainer, "step", lambda self: (steps.append(self.steps_done), step(self))[1]
    )
    run(model, step_problems, tmp_path)
    assert steps == list(range(3, STEPS))


def test_a_finished_run_trains_no_more(
    whole: Path, model: Path, step_problems: list[StepProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CcotTrainer, "step", lambda _: pytest.fail("it trains"))
    assert run(model, step_problems, whole) == whole / MODEL


def test_another_runs_folder_is_refused(
    whole: Path, model: Path, step_problems: list[StepProblem]
) -> None:
    with pytest.raises(RunFolderError, match=r"ratio=0\.1, not 0\.2"):
        run(model, step_problems, whole, replace(SETTINGS, ratio=0.2))
    with pytest.raises(RunFolderError, match=r"train='t\.jsonl', not 'other\.jsonl'"):
        run(model, step_problems, whole, train="other.jsonl")


def test_other_problems_in_a_file_of_the_same_name_are_refused(
    whole: Path, model: Path, step_problems: list[StepProblem]
) -> None:
    with pytest.raises(RunFolderError, match=r"problems_digest='\w+', not"):
        run(model, step_problems[::-1], whole)


def test_one_checkpoint_is_left(whole: Path) -> None:
    left = [*(whole / "checkpoints").glob("global_step_*")]
    assert [folder.name for folder in left] == [f"global_step_{STEPS}"]


def test_a_gradient_that_is_no_number_ends_it(
    model: Path, step_problems: list[StepProblem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite, and the weights would not be any more."""

    def root_of_nothing(phase: object, adapters: Adapters, *_: object) -> dict[str, torch.Tensor]:
        return {"state_error": (0 * adapters.parameters("phi", [1])[0].sum()).sqrt()}

    monkeypatch.setattr(ccot_training, "losses_of", root_of_nothing)
    with pytest.raises(RunBrokenError, match=r"layer 1, step 1: the gradient is nan"):
        run(model, step_problems, tmp_path)


def test_what_cannot_be_trained_claims_no_folder(
    model: Path, step_problems: list[StepProblem], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="layer is 3, but the model has layers 1 to 2"):
        run(model, step_problems, tmp_path, replace(SETTINGS, layer=3))
    with pytest.raises(ConfigError, match=r"20 thoughts and an answer of 300 tokens need \d+ pos"):
        run(model, step_problems, tmp_path, replace(SETTINGS, max_new_tokens=300))
    with pytest.raises(ConfigError, match=r"t\.jsonl: there are no problems"):
        run(model, [], tmp_path)
    run(model, step_problems, tmp_path, replace(SETTINGS, ratio=0))


def test_what_is_saved_is_what_was_trained(whole: Path, model: Path) -> None:
    settings, of = read(whole / MODEL)
    assert settings == SETTINGS
    assert of["train"] == "t.jsonl"
    adapters, ending, loaded = load(whole / MODEL, model, torch.float32, "cpu")
    assert loaded == SETTINGS
    tensors = load_file(whole / MODEL / TENSORS_FILE)
    assert torch.equal(tensors["ending.weight"], ending.weight)
    for name, parameter in adapters.state_dict().items():
        assert torch.equal(tensors[name], parameter)
    assert tensors["ending.weight"].abs().sum() > 0


def test_the_model_itself_is_left_alone(whole: Path, model: Path) -> None:
    adapters, _, _ = load(whole / MODEL, model, torch.float32, "cpu")
    base = load_file(model / "model.safetensors")
    own = dict(adapters.model.named_parameters())
    for name, tensor in base.items():
        there = name if name in own else f"{name.removesuffix('.weight')}.base_layer.weight"
        there = there if there in own else f"{name.removesuffix('.bias')}.base_layer.bias"
        assert torch.equal(own[there], tensor)


def test_damaged_or_anothers(
    whole: Path, model: Path, step_problems: list[StepProblem], tmp_path: Path
) -> None:
    with pytest.raises(RunFolderError, match="holds nothing that CCOT has trained"):
        read(tmp_path)
    other = make_model(
        tmp_path / "other", step_problems,
        architecture="qwen2", layers=2, hidden_size=32, heads=2, context=256, seed=1,
    )  # fmt: skip
    with pytest.raises(RunFolderError, match=f"was trained for {model}, and .*other has other"):
        load(whole / MODEL, other, torch.float32, "cpu")
    half = tmp_path / "half"
    half.mkdir()
    (half / CCOT_FILE).write_text((whole / MODEL / CCOT_FILE).read_text())
    (half / TENSORS_FILE).write_bytes((whole / MODEL / TENSORS_FILE).read_bytes()[:1000])
    with pytest.raises(RunFolderError, match=r"ccot\.safetensors is missing or damaged"):
        load(half, model, torch.float32, "cpu")
    (half / TENSORS_FILE).write_bytes(b"")
    (half / CCOT_FILE).write_text('{"settings": {"ratio": 7}, "of": {"weights": "w"}}')
    with pytest.raises(RunFolderError, match=r"ccot\.json is damaged .*ratio is 7"):
        read(half)


def test_a_model_of_latent_training_must_write_its_steps(
    model: Path, step_problems: list[StepProblem], tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / LATENT_FILE
    thinking = {"thoughts": 0, "thoughts_per_step": 1, "ends": "fixed", "max_new_tokens": 8}
    short = replace(SETTINGS, ratio=0, decoder_epochs=1, joint_epochs=0)
    for method in ("coconut", "cot"):
        file.write_text(json.dumps({"thinking": {"method": method, **thinking}}))
        if method == "coconut":
            with pytest.raises(ConfigError, match=r"method coconut .* take one of method cot, or"):
                run(tmp_path / "model", step_problems, tmp_path / method, short)
        else:
            run(tmp_path / "model", step_problems, tmp_path / method, short)


def test_a_training_that_comes_apart_ends(
    model: Path, step_problems: list[StepProblem], tmp_path: Path
) -> None:
    with pytest.raises(RunBrokenError, match=r"the loss is no number .* lower learning_rate"):
        run(model, step_problems, tmp_path, replace(SETTINGS, learning_rate=1e30))


def test_another_seed_is_another_training(
    whole: Path, model: Path, step_problems: list[StepProblem], tmp_path: Path
) -> None:
    run(model, step_problems, tmp_path, replace(SETTINGS, seed=1))
    assert metrics(tmp_path)[0]["state_error"] != metrics(whole)[0]["state_error"]
