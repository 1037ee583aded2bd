"""verl's own `_save_checkpoint` under ours: what it writes becomes a checkpoint that counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback

from rsp_rl.basics.errors import RunBrokenError
from rsp_rl.dials.options import RspOptions
from rsp_rl.runs.checkpoints import TRACKER, check_whole, finished_checkpoints, saved_law
from rsp_rl.runs.data_order import saved_order
from rsp_rl.training.verl_plugin.trainer import SoftPromptTrainer
from rsp_rl.training.verl_plugin.watchdog import Progress


class Ranks:
    """Two ranks' engines: each saves its shard; the disk may be full for the second."""

    def __init__(self) -> None:
        self.full = False
        self.keep: list[int | None] = []

    def save_checkpoint(
        self, local_path: str, remote_path: None, step: int, max_ckpt_to_keep: int | None
    ) -> None:
        self.keep.append(max_ckpt_to_keep)
        folder = Path(local_path)
        folder.mkdir(parents=True)
        for rank in range(2):
            if rank and self.full:
                raise RuntimeError("a remote traceback\nOSError: No space left on device")
            (folder / f"model_world_size_2_rank_{rank}.pt").write_bytes(bytes([step]))


class Callback(CheckpointCallback):
    """A user's: keeps what it was called with, and whether the checkpoint counted by then."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, bool]] = []

    def on_save(self, trainer: Any, global_step: int, checkpoint_dir: str, **kwargs: Any) -> None:
        folder = Path(checkpoint_dir)
        counts = folder.parent.joinpath(TRACKER).read_text() == str(global_step)
        self.calls.append((global_step, folder.name, counts and folder.is_dir()))


class Loader:
    """The data loader's place in the data."""

    def state_dict(self) -> dict[str, int]:
        return {"position": 7}


@pytest.fixture
def trainer(tmp_path: Path) -> SoftPromptTrainer:
    """A trainer with all that saving touches."""
    config = OmegaConf.create(
        {
            "trainer": {
                "default_local_dir": str(tmp_path),
                "default_hdfs_dir": None,
                "max_actor_ckpt_to_keep": 2,
            },
            "actor_rollout_ref": {"actor": {"checkpoint": {"async_save": False}}},
        }
    )
    OmegaConf.set_struct(config, True)
    made = SoftPromptTrainer.__new__(SoftPromptTrainer)
    made.config, made.trainer_mode, made.use_critic = config, "sync", False
    made.progress, made._options = Progress(), RspOptions(length=8, mean=0.0, std=0.02)
    made.actor_rollout_wg, made.train_dataloader = Ranks(), Loader()
    made.checkpoint_callback, made._order = Callback(), {"data.seed": 42}
    return made


def _save(trainer: SoftPromptTrainer, step: int) -> None:
    trainer.global_steps = step
    trainer._save_checkpoint()


def test_what_verl_saves_counts_once_it_is_whole(
    trainer: SoftPromptTrainer, tmp_path: Path
) -> None:
    before = OmegaConf.to_container(trainer.config)
    for step in (1, 2, 3):
        _save(trainer, step)
    newest = tmp_path / "global_step_3"
    check_whole(newest, ranks=2)
    assert set(json.loads((newest / "sizes.json").read_text())) == {
        *("actor/model_world_size_2_rank_0.pt", "actor/model_world_size_2_rank_1.pt"),
        *("data.pt", "rsp.json", "data_order.json"),
    }
    assert saved_order(newest) == {"data.seed": 42, "trainer.v1.trainer_mode": "rsp_sync"}
    assert saved_law(newest)["length"] == 8
    assert (tmp_path / TRACKER).read_text() == "3"
    assert list(finished_checkpoints(tmp_path)) == [2, 3]  # pruned by us,
    assert trainer.actor_rollout_wg.keep == [None] * 3  # not by verl
    assert trainer.checkpoint_callback.calls == [
        (step, f"global_step_{step}", True) for step in (1, 2, 3)
    ]
    assert OmegaConf.to_container(trainer.config) == before
    assert trainer.progress.phase == "saving of step 3"


def test_a_save_that_fails_ends_the_run_with_one_error(
    trainer: SoftPromptTrainer, tmp_path: Path
) -> None:
    _save(trainer, 1)
    trainer.actor_rollout_wg.full = True
    message = r"step 2 could not be saved \(OSError: No space left on device\); .* Make room in"
    with pytest.raises(RunBrokenError, match=message):
        _save(trainer, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_1", TRACKER]
    check_whole(tmp_path / "global_step_1", ranks=2)
    assert trainer.config.trainer.default_local_dir == str(tmp_path)
    assert trainer.checkpoint_callback.calls == [(1, "global_step_1", True)]
