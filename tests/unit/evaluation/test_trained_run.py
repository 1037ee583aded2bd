"""What a run's folder says to its evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import write_json
from rsp_rl.evaluation.trained_run import TrainedRun, checkpoint_run
from rsp_rl.inference.model_law import model_law
from rsp_rl.thoughts.settings import ThoughtSettings
from rsp_rl.tiny import make_tiny_model


def make_run(
    root: Path, *steps: int, model: str = "models/base", latest: int | None = None
) -> Path:
    """A run's folder as training leaves it, weights aside."""
    (root / "config").mkdir(parents=True)
    config = {
        "actor_rollout_ref": {"model": {"path": "models/base"}},
        "trainer": {
            "project_name": "p",
            "experiment_name": "e",
            "logger": ["console", "file", "tensorboard"],
            "total_training_steps": 30,
        },
    }
    OmegaConf.save(OmegaConf.create(config), root / "config" / "config.yaml")
    launched = OmegaConf.create({"hydra": {"runtime": {"cwd": str(root.parent)}}})
    OmegaConf.save(launched, root / "config" / "hydra.yaml")
    for step in steps:
        actor = root / "checkpoints" / f"global_step_{step}" / "actor"
        actor.mkdir(parents=True)
        (actor / "model_world_size_1_rank_0.pt").touch()
    if steps:
        tracker = root / "checkpoints" / "latest_checkpointed_iteration.txt"
        tracker.write_text(str(max(steps) if latest is None else latest))
    return root


def test_a_run_of_ours(tmp_path: Path) -> None:
    run = TrainedRun.open(make_run(tmp_path / "run", 10, 20, 30, latest=20))
    assert list(run.steps()) == [10, 20]
    assert run.last_step() == 30
    assert run.law() is None
    write_json(tmp_path / "run" / "rsp.json", {"mean": 0.5, "std": 0.25})
    assert run.law() == (0.5, 0.25)


def test_the_base_model_is_where_training_was_started(tmp_path: Path) -> None:
    run = TrainedRun.open(make_run(tmp_path / "run", 10))
    with pytest.raises(ConfigError, match=r"models/base"):
        run.base_model()
    (tmp_path / "models" / "base").mkdir(parents=True)
    assert run.base_model() == tmp_path / "models" / "base"


def test_a_run_that_has_no_checkpoint_yet_can_be_watched(tmp_path: Path) -> None:
    run = TrainedRun.open(make_run(tmp_path / "run"))
    assert run.steps() == {}


def test_a_folder_of_plain_verl(tmp_path: Path) -> None:
    (make_run(tmp_path / "run", 10) / "checkpoints").rename(tmp_path / "experiment")
    run = TrainedRun.open(tmp_path / "experiment")
    assert list(run.steps()) == [10]
    assert (run.law(), run.last_step()) == (None, None)
    with pytest.raises(ConfigError, match="--base-model"):
        run.base_model()
    run.track({"a": 1.0}, 10)  # nowhere to log


def test_a_model_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert TrainedRun.open(tmp_path) is None
    assert TrainedRun.open(tmp_path / "nowhere") is None


def test_one_checkpoint_belongs_to_its_run(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run", 10)
    assert checkpoint_run(root / "checkpoints" / "global_step_10") == (root, 10)
    assert checkpoint_run(root) is None
    assert checkpoint_run(root / "checkpoints" / "global_step_11") is None


def test_values_reach_the_runs_tensorboard_at_the_checkpoints_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setenv("TENSORBOARD_DIR", "")  # put back afterwards
    run = TrainedRun.open(make_run(tmp_path / "run", 10, 20))
    for step, value in ((10, 0.5), (20, 0.75)):
        run.track({"eval/quick/headline": value}, step)
    (folder,) = {file.parent for file in (tmp_path / "run" / "tensorboard").rglob("events*")}
    events = EventAccumulator(str(folder)).Reload().Scalars("eval/quick/headline")
    assert [(event.step, event.value) for event in events] == [(10, 0.5), (20, 0.75)]


def test_a_dtype_or_rounding_unlike_that_of_trainings_rollouts_is_said(tmp_path: Path) -> None:
    run = TrainedRun.open(make_run(tmp_path / "run", 10))
    _, *none = run.unlike_training("chat", tmp_path, "float32")  # the first: no data to compare
    assert none == []
    run.config.actor_rollout_ref.rollout = {"dtype": "bf16", "quantization": None}
    _, *none = run.unlike_training("chat", tmp_path, "bfloat16")
    assert none == []
    run.config.actor_rollout_ref.rollout.quantization = "fp8"
    _, dtype, rounding = run.unlike_training("chat", tmp_path, "float32")
    assert dtype == "the model computes in float32, in training's rollouts in bfloat16"
    assert "fp8" in rounding
    run.config.actor_rollout_ref.rollout.quantization = None
    adapter = {"adapter": {"r": 8, "bfloat16_loss": 0.4}}
    write_json(tmp_path / "merged.json", adapter)
    _, rounded = run.unlike_training("chat", tmp_path, "bfloat16")
    assert "merged LoRA adapter by 40% of its size" in rounded
    assert len(run.unlike_training("chat", tmp_path, "float32")) == 2  # the dtype alone
    plain = TrainedRun(tmp_path, tmp_path, None)
    assert plain.unlike_training("chat", tmp_path, "float32") == []


def test_the_table_that_noise_is_measured_by_is_the_pretrained_one(tmp_path: Path) -> None:
    """A checkpoint's own has moved; without the base model nothing is known."""
    run = TrainedRun.open(make_run(tmp_path / "run", 10))
    assert run.table() is None
    model = make_tiny_model(tmp_path / "models" / "base", steps=0, threads=1)
    stats = model_law(model)
    assert run.table() == run.table(str(model)) == (stats.mean, stats.std)
    assert run.table(str(tmp_path / "nothing")) is None
    write_json(tmp_path / "run" / "rsp.json", {"mean": 0.5, "std": 0.25})
    assert run.table() == (0.5, 0.25)


@pytest.mark.parametrize(
    ("trained", "asked", "alike"),
    [
        (None, None, True),
        (None, "soft", False),
        ({"name": "soft", "validation": False}, None, True),
        ({"name": "soft", "validation": False}, "token", True),
        ({"name": "soft", "validation": True}, "soft", True),
        ({"name": "soft", "validation": True}, None, False),
    ],
)
def test_validation_is_held_against_what_thinks_alike(
    trained: dict | None, asked: str | None, alike: bool, tmp_path: Path
) -> None:
    root = make_run(tmp_path / "run", 10)
    file = root / "config" / "config.yaml"
    config = OmegaConf.load(file)
    if trained:
        config.law = trained
    OmegaConf.save(config, file)
    law = asked and ThoughtSettings.from_dict(asked, {"max_thoughts": 3, "end": []})
    assert TrainedRun.open(root).validates_as(law) == alike
