"""What a run whose rollouts outlive an update cannot be, and what it is told."""

from __future__ import annotations

import logging

import pytest
from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.asynchronous import ASYNCHRONOUS, TRAINER_MODES, check_asynchronous
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preflight import check_trainer

MODE = f"trainer.v1.trainer_mode={ASYNCHRONOUS}"


def _config(*overrides: str) -> DictConfig:
    return compose_config("tiny_cpu", [*overrides])


def test_it_says_that_older_tokens_are_not_weighed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_asynchronous(_config())
        check_asynchronous(_config(MODE, "+correction=tis"))
        assert not caplog.text
        check_asynchronous(_config(MODE))
    assert "+correction=tis weighs them" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_asynchronous(_config(MODE, "law=multiplex"))
    assert "no correction is for thoughts" in caplog.text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("actor_rollout_ref.rollout.full_determinism=true", "draws come a second time"),
        ("trainer.v1.colocate_async.num_warmup_batches=0", "waits for every rollout"),
        ("trainer.v1.colocate_async.num_warmup_batches=0.001", "waits for every rollout"),
        ("trainer.v1.colocate_async.num_warmup_batches=.inf", "above 0"),
        ("trainer.v1.colocate_async.num_warmup_batches=many", "above 0"),
        ("reward.reward_model.enable=true", "enable_resource_pool=True"),
        ("trainer.critic_warmup=2", "set it to 0"),
    ],
)
def test_what_cannot_be_asynchronous(change: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_asynchronous(_config(MODE, change))
    check_asynchronous(_config(change))


@pytest.mark.parametrize("mode", TRAINER_MODES)
def test_both_are_our_trainers(mode: str) -> None:
    check_trainer(_config(f"trainer.v1.trainer_mode={mode}"))


@pytest.mark.parametrize("mode", ["sync", "colocate_async", "separate_async"])
def test_verls_own_trainers_are_refused(mode: str) -> None:
    with pytest.raises(ConfigError, match="take one of rsp_sync, rsp_async"):
        check_trainer(_config(f"trainer.v1.trainer_mode={mode}"))
