"""Settings that are added beside the one that was meant."""

from __future__ import annotations

import logging

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.misspelt import check_added


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("+trainer.save_frq=10", "trainer.save_freq"),
        ("+data.train_file=a.parquet", "data.train_files"),
        ("+trianer.save_freq=10", "trainer"),
        (
            "+actor_rollout_ref.actor.clip_ratio_hihg=0.28",
            "actor_rollout_ref.actor.clip_ratio_high",
        ),
        ("+algorithm.filter_group.enable=True", "algorithm.filter_groups"),
        ("+actor_rollout_ref.rollout.val_kwarg.n=4", "actor_rollout_ref.rollout.val_kwargs"),
    ],
)
def test_a_setting_that_nothing_reads(
    override: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=rf"no setting, .*set {meant}, or \+\+"):
        check_added(["data.seed=1", override])
    check_added([f"+{override}"])
    assert f"is it {meant} that is meant?" in caplog.text


@pytest.mark.parametrize(
    "override",
    [
        "data.seed=1",
        "+trainer.wandb_proxy=http://a",
        "+memory=low",
        "+correction=tis",
        "+data.apply_chat_template_kwargs.enable_thinking=False",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.max_num_batched_tokens=100",
        "+ray_kwargs.ray_init.runtime_env.env_vars.A=1",
        "++trainer.save_freq=3",
        "~data.seed",
    ],
)
def test_what_is_added_on_purpose(override: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    check_added([override])
    assert not caplog.text
