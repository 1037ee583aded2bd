"""Which steps of a run are evaluated, and when; what is done here was done before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.evaluation import sweep
from rsp_rl.evaluation.folder import EvaluationFolder, StepFolder
from rsp_rl.evaluation.modes import Mode, modes_in
from rsp_rl.evaluation.protocol import Protocol, load_modes, load_protocol
from rsp_rl.evaluation.runner import Outcome
from rsp_rl.evaluation.sweep import Sweep
from rsp_rl.evaluation.trained_run import TrainedRun
from rsp_rl.inference.model_law import model_law
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.runs.merging import shards_digest
from rsp_rl.tiny import make_tiny_model
from tests.unit.evaluation.made_runs import make_evaluation
from tests.unit.evaluation.test_trained_run import make_run

PROTOCOL = load_protocol("tiny")


def make_sweep(root: Path, evaluated: tuple[int, ...], *saved: int, **options: object) -> Sweep:
    """A run with checkpoints, some steps of which are evaluated."""
    run = make_run(root, *saved)
    folder = make_evaluation(
        root,
        dict.fromkeys(evaluated, 0.5),
        benchmarks={"arithmetic": (6, 1)},
        headline=("arithmetic",),
        fingerprint=PROTOCOL.fingerprint(),
    )
    trained = TrainedRun.open(run)
    return Sweep(trained, [Mode("", PROTOCOL, folder)], EngineOptions(), **options)


def test_all_steps_and_the_base_model_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = make_sweep(tmp_path / "run", (0, 10, 20), 20, 10)
    assert chosen.once() == []
    said = capsys.readouterr().err
    assert said.index("step 0: done") < said.index("step 10: done") < said.index("step 20: done")
    assert "step 20" in chosen.modes[0].folder.summary_markdown.read_text()
    assert chosen.modes[0].folder.report.is_file()


def test_a_step_that_fails_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = make_sweep(tmp_path / "run", (10,), 10, steps=(0, 7, 10))
    base, missing = chosen.once()
    assert "step 0: actor_rollout_ref.model.path='models/base'" in base
    assert "step 7: " in missing
    assert "there are: 10" in missing
    assert "step 10: done before" in capsys.readouterr().err


def test_watching_takes_each_checkpoint_as_it_lands_and_ends_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Training ends with step 30, which is not there yet.
    chosen = make_sweep(tmp_path / "run", (0, 10, 30), 10)
    checkpoints = tmp_path / "run" / "checkpoints"

    def train(_: float) -> None:
        """What happens while the watcher sleeps, one thing at a time."""
        actor = checkpoints / "global_step_30" / "actor"
        if not actor.exists():
            actor.mkdir(parents=True)
        elif not any(actor.iterdir()):
            (actor / "model_world_size_1_rank_0.pt").touch()
        else:  # it waited for verl's tracker to name it
            (checkpoints / "latest_checkpointed_iteration.txt").write_text("30")
        sleeps.append(1)

    sleeps: list[int] = []
    monkeypatch.setattr(sweep, "time", SimpleNamespace(sleep=train))
    assert chosen.watch() == []
    assert len(sleeps) == 3
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if line.startswith("step")] == [
        "step 0: done before",
        "step 10: done before",
        "step 30: done before",
    ]


def test_lora_steps_evaluated_before_adapters_were_merged_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = make_sweep(tmp_path / "run", (10, 20), 10, 20, steps=(10, 20))
    for step in (10, 20):
        actor = tmp_path / "run" / "checkpoints" / f"global_step_{step}" / "actor"
        (actor / "lora_train_meta.json").write_text('{"r": 8, "lora_alpha": 16}')
    how = chosen.modes[0].folder.step(20).manifest
    made = {"made_of": {"shards": shards_digest(actor)}}
    how.write_text(json.dumps(json.loads(how.read_text()) | {"stored": made}))
    (failed,) = chosen.once()
    assert failed.startswith("step 10: ")
    assert "without its LoRA adapter: the numbers are the base model's" in failed
    assert "step 20: done before" in capsys.readouterr().err
    assert (
        "Warning, step 10: evaluated without" in chosen.modes[0].folder.summary_markdown.read_text()
    )
    # Training was started anew in the same folder.
    (actor / "model_world_size_1_rank_0.pt").write_bytes(b"another")
    (failed,) = replace(chosen, steps=(20,)).once()
    assert "was evaluated with another checkpoint than" in failed


def test_all_modes_of_a_step_share_its_model_and_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is done is skipped, a mode that fails leaves the others, and tables follow."""
    done = make_sweep(tmp_path / "run", (10,), 10)
    base = tmp_path / "base"
    other = replace(PROTOCOL, name="tiny.b", seed=1)
    modes = [
        replace(done.modes[0], name="a"),
        *(Mode(name, other, EvaluationFolder(tmp_path / name)) for name in ("b", "c")),
    ]
    calls: list[tuple] = []

    def evaluate(model: Path, protocol: object, folder: StepFolder, **options: object) -> Outcome:
        calls.append((model, folder.root, options["engines"]))
        if folder.root.parent.name == "b":
            raise ConfigError("no room")
        return Outcome(accuracy={"arithmetic": 0.5})

    monkeypatch.setattr(sweep, "evaluate", evaluate)
    monkeypatch.setattr(sweep, "merge_checkpoint", lambda checkpoint: base)
    written: list[int] = []
    chosen = replace(done, modes=modes, steps=(10,), on_written=lambda: written.append(1))
    assert chosen.once() == ["step 10, b: no room"]
    assert [call[:2] for call in calls] == [
        (base, tmp_path / name / "step_10") for name in ("b", "c")
    ]
    assert calls[0][2] is calls[1][2]
    said = capsys.readouterr().err
    assert "step 10, a: done before" in said
    assert "step 10, c: arithmetic 50.0%" in said
    assert written == [1]


def test_noise_in_units_of_another_table_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of laws with noise, where the base model is gone and the run had no soft prompts."""
    done = make_sweep(tmp_path / "run", (), 10)
    modes = load_modes("soft_tokens", ["benchmarks=[arithmetic]", "headline=[arithmetic]"])
    tables: dict[str, object] = {}

    def evaluate(_: Path, protocol: Protocol, *__: object, **options: object) -> Outcome:
        tables[protocol.name.partition(".")[2]] = options["table"]
        return Outcome(accuracy={"arithmetic": 0.5})

    monkeypatch.setattr(sweep, "evaluate", evaluate)
    monkeypatch.setattr(sweep, "merge_checkpoint", lambda checkpoint: tmp_path / "base")
    chosen = replace(done, modes=modes_in(tmp_path / "six", modes), steps=(10,))
    assert chosen.once() == []
    said = capsys.readouterr().err
    for mode in modes:
        warned = f"warning: step 10, {mode}: the model that training started from is gone" in said
        assert warned == (mode in ("soft_sampled", "fuzzy_sampled"))
    assert set(tables.values()) == {None}
    model = make_tiny_model(tmp_path / "pretrained", steps=0, threads=1)
    assert replace(chosen, base_model=str(model)).once() == []
    stats = model_law(model)
    assert tables["soft_sampled"] == tables["fuzzy_sampled"] == (stats.mean, stats.std)
    assert tables["soft_greedy"] is tables["hard_sampled"] is None
    assert "is gone" not in capsys.readouterr().err
