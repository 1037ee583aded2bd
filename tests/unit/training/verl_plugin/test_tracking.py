"""A tracker that fails costs its own logs; the run's own record is another matter."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.tracking import Tracking

from rsp_rl.basics.errors import ConfigError, RunBrokenError
from rsp_rl.training.configs import compose_config
from rsp_rl.training.verl_plugin.tracking import guard_trackers
from rsp_rl.training.verl_plugin.trainer import SoftPromptTrainer
from rsp_rl.training.verl_plugin.watchdog import Progress


class Tracker:
    """Fails at some steps, and perhaps when it is closed."""

    def __init__(self, fails: tuple[int, ...] = (), closes: bool = True) -> None:
        self.fails, self.closes, self.steps = fails, closes, []
        self.url = "https://there"

    def log(self, data: dict, step: int) -> None:
        if step in self.fails:
            raise ConnectionError("no network\nfor now")
        self.steps.append(step)

    def finish(self, exit_code: int = 0) -> None:
        if not self.closes:
            raise ConnectionError("gone")


def tracking(**trackers: Tracker) -> Tracking:
    made = Tracking.__new__(Tracking)
    made.logger, made._finished = trackers, False
    return made


def test_a_tracker_that_fails_at_some_step_misses_that_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wandb, file = Tracker(fails=(50, 51), closes=False), Tracker()
    made = tracking(wandb=wandb, file=file)
    guard_trackers(made, ["wandb", "file"])
    guard_trackers(made, ["wandb", "file"])  # once, however often it is asked for
    with caplog.at_level(logging.WARNING):
        for step in (49, 50, 51, 52):
            made.log(data={}, step=step)
        made.finish(exit_code=0)
    assert wandb.steps == [49, 52]
    assert file.steps == [49, 50, 51, 52]
    assert made.logger["wandb"].url == "https://there"
    assert [message.split("(")[0] for message in caplog.messages] == [
        "the tracker wandb failed ",
        "the tracker wandb could not be closed: gone",
        "the tracker wandb missed 2 of 4 logs",
    ]


def test_the_runs_own_record_must_be_written() -> None:
    made = tracking(file=Tracker(fails=(3,)))
    guard_trackers(made, ["file"])
    with pytest.raises(RunBrokenError, match=r"metrics cannot be written \(ConnectionError: no ne"):
        made.log(data={}, step=3)


def test_a_tracker_that_verl_goes_on_without_is_named(caplog: pytest.LogCaptureFixture) -> None:
    guard_trackers(tracking(file=Tracker()), ["file", "mlflow"])
    assert caplog.messages == ["verl goes on without mlflow, which could not be opened"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError("bad\nkey"), ConfigError), (ConnectionError("bad\nkey"), RunBrokenError)],
)
def test_a_tracker_that_fails_as_verl_opens_it_is_one_line(
    error: Exception, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retried only where that can help; verl opens them first of all when it begins to train."""

    def opens(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(trainer_base, "Tracking", opens)
    trainer = SoftPromptTrainer.__new__(SoftPromptTrainer)
    trainer.config = compose_config("tiny_cpu", ["trainer.logger=[console,wandb]"])
    trainer.total_training_steps = trainer.global_steps = 1
    trainer.progress = Progress()
    nothing = SimpleNamespace(
        workers=[], agent_loop_workers=[], reward_loop_workers=[], global_load_balancer=None
    )
    trainer.actor_rollout_wg = trainer.reward_loop_manager = nothing
    trainer.llm_server_manager = SimpleNamespace(get_replicas=list, global_load_balancer=None)
    with pytest.raises(kind, match=r"logger=\['console', 'wandb'\] cannot be opened .*: bad key"):
        trainer.fit(nothing)
