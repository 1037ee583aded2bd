"""Settings that defeat a run: what passes, and what an error names."""

from __future__ import annotations

import copy
from functools import cache

import pytest
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions
from rsp_rl.grading.reward import compute_score
from rsp_rl.training.configs import compose_config
from rsp_rl.training.self_defeating import (
    GROUP_BASELINES,
    NEEDS_TWO,
    REWARD_METRICS,
    check_groups,
    check_overlong,
    check_saving,
    check_updates,
    check_validation,
)

N = "actor_rollout_ref.rollout.n"
FILTER = "algorithm.filter_groups"
ROLLOUT = "actor_rollout_ref.rollout"


@cache
def _composed(name: str) -> DictConfig:
    return compose_config(name)


def config(changes: dict[str, object] | None = None, name: str = "tiny_cpu") -> DictConfig:
    made = copy.deepcopy(_composed(name))
    for key, value in (changes or {}).items():
        OmegaConf.update(made, key, value, force_add=True)
    return made


@pytest.mark.parametrize("check", [check_groups, check_overlong, check_saving, check_updates])
@pytest.mark.parametrize("name", ["dapo", "dapo_rsp", "tiny_cpu"])
def test_our_configs_pass(check: object, name: str, caplog: pytest.LogCaptureFixture) -> None:
    check(config(name=name))
    assert not caplog.records


# Groups.


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({N: 1, f"{FILTER}.enable": True}, "a group of one is never all right and all wrong"),
        ({f"{FILTER}.enable": True, f"{FILTER}.metric": "accuracy"}, "metric=accuracy is nothing"),
        ({f"{FILTER}.enable": True, f"{FILTER}.metric": None}, "metric=None is nothing"),
        ({f"{FILTER}.enable": True, f"{FILTER}.max_num_gen_batches": -1}, "max_num_gen_batches=-1"),
        ({N: 1, "algorithm.adv_estimator": "grpo_passk"}, "compares two rollouts"),
    ],
)
def test_groups_that_cannot_be_used_are_refused(changes: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        check_groups(config(changes))


@pytest.mark.parametrize(
    "changes",
    [
        {f"{FILTER}.metric": "accuracy"},  # off
        {f"{FILTER}.enable": True, f"{FILTER}.metric": "score"},
        {
            f"{FILTER}.enable": True,
            f"{FILTER}.metric": "mine",
            "reward.custom_reward_function.path": "mine.py",
        },
        {N: 1, "algorithm.adv_estimator": "reinforce_plus_plus"},
    ],
)
def test_groups_that_can_pass(changes: dict, caplog: pytest.LogCaptureFixture) -> None:
    check_groups(config(changes))
    assert not caplog.records


@pytest.mark.parametrize("estimator", sorted(GROUP_BASELINES - NEEDS_TWO))
def test_a_group_of_one_has_no_baseline(estimator: str, caplog: pytest.LogCaptureFixture) -> None:
    check_groups(config({N: 1, "algorithm.adv_estimator": estimator}))
    assert f"adv_estimator={estimator} holds a rollout against the others" in caplog.text


def test_the_metrics_are_the_rewards() -> None:
    numbers = {k for k, v in compute_score("a", "1", "1").items() if isinstance(v, float)}
    assert numbers | {"reward"} == REWARD_METRICS  # verl's own name for the score


def test_the_estimators_are_verls() -> None:
    from verl.trainer.ppo.core_algos import AdvantageEstimator

    alone = {"gae", "reinforce_plus_plus", "remax"}
    assert {estimator.value for estimator in AdvantageEstimator} == GROUP_BASELINES | alone


# Saving.


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"trainer.resume_mode": "always"}, "resume_mode=always is unknown"),
        ({"trainer.max_actor_ckpt_to_keep": "two"}, "max_actor_ckpt_to_keep=two"),
        ({"trainer.max_actor_ckpt_to_keep": 1.5}, "max_actor_ckpt_to_keep=1.5"),
        ({"trainer.max_actor_ckpt_to_keep": True}, "max_actor_ckpt_to_keep=True"),
        ({"trainer.del_local_ckpt_after_load": True}, "deletes the checkpoint"),
        ({"trainer.remove_previous_ckpt_in_save": True}, "old name"),
        ({"actor_rollout_ref.actor.checkpoint.async_save": True}, "async_save=True"),
        ({"actor_rollout_ref.actor.checkpoint.save_contents": ["extra"]}, "holds no weights"),
        ({"trainer.default_local_dir": None}, "default_local_dir=None names no folder"),
        ({"trainer.resume_from_path": "/a/global_step_3"}, "resume_mode=auto, which does not look"),
    ],
)
def test_what_takes_checkpoints_away_is_refused(changes: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        check_saving(config(changes))


def test_a_checkpoint_that_another_run_comes_out_of(caplog: pytest.LogCaptureFixture) -> None:
    check_saving(config({"actor_rollout_ref.actor.checkpoint.save_contents": ["model"]}))
    assert "save_contents=['model'] lacks optimizer, extra" in caplog.text


# Updates.


def test_steps_that_train_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="critic_warmup=5 without a critic"):
        check_updates(config({"trainer.critic_warmup": 5}))
    check_updates(config({"trainer.critic_warmup": 5, "algorithm.adv_estimator": "gae"}))
    assert not caplog.text
    optim = "actor_rollout_ref.actor.optim"
    check_updates(config({f"{optim}.lr": 0, f"{optim}.lr_warmup_steps": 31}))
    assert "lr=0: the run trains nothing" in caplog.text
    assert "lr_warmup_steps=31: the learning rate never gets to" in caplog.text


@pytest.mark.parametrize("keep", [None, -1, 0, 1, 3])
def test_numbers_of_checkpoints_to_keep(keep: int | None) -> None:
    check_saving(config({"trainer.max_actor_ckpt_to_keep": keep}))


# Soft overlong punishment.

OVERLONG = "reward.reward_kwargs.overlong_buffer_cfg"


@pytest.mark.parametrize("length", [1, 8, 40])
def test_a_punishment_within_the_response_passes(length: int) -> None:
    check_overlong(config({f"{OVERLONG}.enable": True, f"{OVERLONG}.len": length}))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, r"len=512 must be above 0 and not above data\.max_response_length=40"),
        ({f"{OVERLONG}.len": 0}, "len=0"),
        ({f"{OVERLONG}.len": 41}, "len=41"),
        ({"reward.reward_kwargs.max_resp_len": 1000}, "max_resp_len=1000 is not data.max_resp"),
    ],
)
def test_a_punishment_beyond_the_response_is_refused(changes: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        check_overlong(config({f"{OVERLONG}.enable": True} | changes))


def test_other_managers_punish_nothing() -> None:
    changes = {f"{OVERLONG}.enable": True, "reward.reward_manager.name": "naive"}
    check_overlong(config(changes))


# Validation.

VAL = f"{ROLLOUT}.val_kwargs"
SAMPLED = {f"{VAL}.do_sample": True, f"{VAL}.temperature": 1.0}


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, RspOptions()),
        ({f"{VAL}.n": 4} | SAMPLED, RspOptions()),
        ({f"{VAL}.n": 4}, RspOptions(length=8, validation=True)),  # a draw each
        ({f"{VAL}.temperature": 1.0, f"{VAL}.top_k": 1}, RspOptions()),
    ],
)
def test_validations_that_mean_something(changes: dict, options: RspOptions) -> None:
    check_validation(config(changes), options)


@pytest.mark.parametrize(
    ("changes", "options", "cause"),
    [
        ({f"{VAL}.n": 4}, RspOptions(), "n=4 greedy answers .* best@4 and maj@4 would say nothing"),
        ({f"{VAL}.n": 4}, RspOptions(length=8), "n=4 greedy"),
        ({f"{VAL}.n": 4}, RspOptions(length=8, validation=True, mode="shared"), "n=4 greedy"),
        ({f"{VAL}.n": 2, f"{VAL}.top_k": 1} | SAMPLED, RspOptions(), "n=2 greedy"),
        ({f"{VAL}.temperature": 0.6}, RspOptions(), "do_sample=False with temperature=0.6"),
    ],
)
def test_validations_that_would_mean_something_else(
    changes: dict, options: RspOptions, cause: str
) -> None:
    with pytest.raises(ConfigError, match=cause):
        check_validation(config(changes), options)


def test_a_run_that_is_to_validate_alone_would_train() -> None:
    check_validation(config({"trainer.val_only": True}), RspOptions(length=0))
    with pytest.raises(ConfigError, match=r"val_only=True with val_before_train=False"):
        check_validation(
            config({"trainer.val_only": True, "trainer.val_before_train": False}),
            RspOptions(length=0),
        )


def test_verl_looks_at_the_temperature_alone() -> None:
    """In validation: when it heeds `do_sample`, the refusal can go."""
    import inspect

    from verl.trainer.ppo.v1 import agent_loop_tq

    source = inspect.getsource(agent_loop_tq)
    assert "val_kwargs.do_sample" not in source
    assert 'if not trajectory["validate"] and not do_sample' in source
