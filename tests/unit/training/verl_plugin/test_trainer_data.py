"""The trainer's data: the last step that it has prompts for, and its place in a resumed run's."""

from __future__ import annotations

import copy
import logging
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_sampler

from rsp_rl.basics.errors import ConfigError
from rsp_rl.evaluation.trained_run import TrainedRun
from rsp_rl.runs.checkpoints import TRACKER
from rsp_rl.runs.data_order import ROWS, save_order
from rsp_rl.training.configs import compose_config
from rsp_rl.training.verl_plugin import trainer as module
from rsp_rl.training.verl_plugin.trainer import SoftPromptTrainer


class Numbers(torch.utils.data.Dataset):
    """Rows that are their own numbers."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> int:
        return index


@cache
def _composed() -> DictConfig:
    return compose_config("tiny_cpu")


def made(
    monkeypatch: pytest.MonkeyPatch, run: Path, rows: int = 64, **changes: object
) -> SoftPromptTrainer:
    """A trainer with its data: verl's own loader and arithmetic, rows that are numbers."""
    monkeypatch.setattr(
        "verl.trainer.ppo.v1.trainer_base.create_rl_dataset", lambda *_, **__: Numbers(rows)
    )
    monkeypatch.setattr("verl.trainer.ppo.v1.trainer_base.collate_fn", list)
    config = copy.deepcopy(_composed())
    changes = {"run_dir": str(run), "data.val_batch_size": 8, **changes}
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    with open_dict(config):
        config.trainer.v1.rsp_sync.data_order = {
            "data.seed": config.data.seed,
            "data.train_files": ["digest"],
        }
    trainer = SoftPromptTrainer.__new__(SoftPromptTrainer)
    trainer.config, trainer.trainer_mode, trainer.parameter_sync_step = config, "sync", 1
    trainer.tokenizer = trainer.processor = None
    trainer.use_critic = False
    run.mkdir(exist_ok=True)  # as preparation does
    trainer.actor_rollout_wg = Ranks()
    trainer._init_dataloader()
    return trainer


class Ranks:
    """Engines that load whatever they are told to."""

    def load_checkpoint(self, **_: Any) -> None:
        """Nothing to load."""


def next_rows(trainer: SoftPromptTrainer) -> list[int]:
    return next(iter(trainer.train_dataloader))


@pytest.mark.parametrize(
    ("epochs", "steps", "last"), [(1, 100, 4), (3, 100, 12), (25, 100, 100), (1, 3, 3)]
)
def test_the_last_step_is_the_last_that_there_are_prompts_for(
    epochs: int,
    steps: int,
    last: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """verl validates and saves at it, and the learning rate's schedule ends with it."""
    changes = {"trainer.total_epochs": epochs, "trainer.total_training_steps": steps}
    with caplog.at_level(logging.WARNING):
        trainer = made(monkeypatch, tmp_path, **changes)
    assert trainer.total_training_steps == last
    assert trainer.config.actor_rollout_ref.actor.optim.total_training_steps == last
    said = f"end with step {last} of trainer.total_training_steps={steps}" in caplog.text
    assert said == (last < steps)
    assert TrainedRun(tmp_path, tmp_path, None).last_step() == last  # for who waits for it


def _checkpoint(run: Path, order: dict[str, object], rows: int = 64) -> None:
    """A checkpoint one batch into the data."""
    folder = run / "checkpoints" / "global_step_1"
    folder.mkdir(parents=True)
    (run / "checkpoints" / TRACKER).write_text("1")
    save_order(folder, order)
    data = _composed().data
    numbers = Numbers(rows)
    loader = StatefulDataLoader(
        numbers, batch_size=16, sampler=create_rl_sampler(data, numbers), collate_fn=list
    )
    iterator = iter(loader)
    next(iterator)
    torch.save(loader.state_dict(), folder / "data.pt")


def test_a_resumed_run_goes_on_in_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(monkeypatch, tmp_path / "whole")
    first, second = [rows for rows, _ in zip(whole.train_dataloader, range(2), strict=False)]
    _checkpoint(tmp_path / "run", {"data.seed": 42, ROWS: 64})
    resumed = made(monkeypatch, tmp_path / "run")
    resumed._load_checkpoint()
    assert next_rows(resumed) == second

    anew = made(monkeypatch, tmp_path / "run", **FORGET, **{"data.seed": 7})
    anew._load_checkpoint()
    assert (anew.global_steps, resumed.global_steps) == (1, 1)
    seven = made(monkeypatch, tmp_path / "seven", **{"data.seed": 7})
    assert next_rows(anew) == next_rows(seven) != first

    # Once a checkpoint was saved under the new order, the same command goes on in it.
    save_order(tmp_path / "run" / "checkpoints" / "global_step_1", anew._order)
    again = made(monkeypatch, tmp_path / "run", **FORGET, **{"data.seed": 7})
    assert not again._data_begins_anew


def test_what_is_under_way_of_data_that_was_given_up_is_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In other modes than the synchronous one verl brings it back."""
    _checkpoint(tmp_path / "run", {"data.seed": 42, ROWS: 64})
    (tmp_path / "run" / "checkpoints" / "global_step_1" / "transfer_queue").mkdir()
    restored: list[str] = []
    monkeypatch.setattr("verl.trainer.ppo.v1.trainer_base.tq.load_checkpoint", restored.append)
    monkeypatch.setattr("verl.trainer.ppo.v1.trainer_base._count_tq_prompt_groups", lambda: 1)
    for changes, count in (({"data.seed": 7, **FORGET}, 0), ({}, 1)):
        trainer = made(monkeypatch, tmp_path / "run", **changes)
        trainer.trainer_mode = "colocate_async"
        trainer._load_checkpoint()
        assert len(restored) == count
        assert trainer.trainer_mode == "colocate_async"


FORGET = {"trainer.v1.rsp_sync.forget_data_position": True}


def test_other_rows_after_filtering_are_refused_before_any_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _checkpoint(tmp_path, {"data.seed": 42, ROWS: 64})
    with pytest.raises(ConfigError, match=f"{ROWS}=63, there 64"):
        made(monkeypatch, tmp_path, rows=63)
    made(monkeypatch, tmp_path, rows=63, **FORGET)
    assert "begins the data anew" in caplog.text


def test_verl_loads_the_place_through_the_loader_alone() -> None:
    """What `_Anew` stands in for; dies when verl restores the place by another way."""
    import inspect

    source = inspect.getsource(module.PPOTrainerSync._load_checkpoint)
    uses = [line.strip() for line in source.splitlines() if "train_dataloader" in line]
    assert uses == ["self.train_dataloader.load_state_dict(dataloader_state_dict)"]
