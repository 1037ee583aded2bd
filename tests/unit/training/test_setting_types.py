"""Settings of another type, or beyond what a run can go on with: one error before the start."""

from __future__ import annotations

from functools import cache

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.configs import compose_config
from rsp_rl.training.setting_ranges import check_ranges
from rsp_rl.training.setting_types import check_types

_NONE = object()


@cache
def _composed() -> DictConfig:
    return compose_config("tiny_cpu")


def _check(override: str) -> None:
    """With one override, as Hydra would set it; to compose a config for each takes too long."""
    config = _composed()
    (parsed,) = OverridesParser.create().parse_overrides([override])
    *groups, name = parsed.key_or_group.split(".")
    group = OmegaConf.select(config, ".".join(groups))
    before = OmegaConf.to_container(group, resolve=False).get(name, _NONE)
    with open_dict(group):
        if parsed.is_delete():
            del group[name]
        else:
            group[name] = parsed.value()
        try:
            check_types(config)
            check_ranges(config)
        finally:
            if before is _NONE:
                del group[name]
            else:
                group[name] = before


ROLLOUT, ACTOR = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("dapo", []),
        ("tiny_cpu", []),
        ("dapo_rsp", ["+memory=low", "+rollout=fp8"]),
    ],
)
def test_our_own_configs_pass(name: str, more: list[str]) -> None:
    config = compose_config(name, more)
    check_types(config)
    check_ranges(config)


@pytest.mark.parametrize(
    "override",
    [
        "trainer.total_training_steps=null",
        "trainer.max_actor_ckpt_to_keep=3",
        "trainer.save_freq=-1",
        "data.seed=null",
        "data.shuffle=null",
        "data.shuffle=0",
        "data.train_files=[a.parquet,b.parquet]",
        "trainer.logger=console",
        "trainer.experiment_name=2026",
        f"{ACTOR}.entropy_coeff=0.001",
        f"{ACTOR}.optim.lr=1e-6",
        f"{ACTOR}.optim.lr=0",
        f"{ACTOR}.optim.lr_warmup_steps=-1",
        "actor_rollout_ref.nccl_timeout=0.5",
        f"{ROLLOUT}.val_kwargs.temperature=0.6",
        f"{ROLLOUT}.top_k=-1",
        f"{ROLLOUT}.top_k=0",
        "algorithm.rollout_correction=null",
        "algorithm.rollout_correction.rollout_is_threshold='0.5_2.0'",
        "+actor_rollout_ref.model.override_config.attn_dropout=0.0",
        "~data.apply_chat_template_kwargs",
        "trainer.v1.rsp_sync.phase_timeout_s=null",
        "reward.reward_kwargs.overlong_buffer_cfg=null",
        "reward.reward_kwargs.max_resp_len=null",
        "data.gen_batch_size=null",
        "ray_kwargs.ray_init.num_cpus=null",
    ],
)
def test_what_works_passes(override: str) -> None:
    _check(override)


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        ("trainer.save_freq=often", r"trainer\.save_freq='often' must be a whole number"),
        ("trainer.save_freq=null", r"save_freq=None must be a whole number"),
        ("trainer.save_freq='10'", r"save_freq='10' must be a whole number"),
        ("trainer.save_freq=2.5", r"save_freq=2\.5 must be a whole number"),
        ("trainer.total_training_steps=1e3", r"=1000\.0 must be a whole number"),
        ("~trainer.test_freq", r"trainer\.test_freq is removed, but must be a whole number"),
        ("data.train_batch_size=16.0", r"train_batch_size=16\.0 must be a whole number"),
        ("data.max_response_length=null", r"max_response_length=None must be a whole number"),
        ("data.train_max_samples=null", r"train_max_samples=None must be a whole number"),
        ("data.shuffle=no", r"data\.shuffle='no' must be True or False"),
        ("data.filter_overlong_prompts='False'", "must be True or False"),
        ("algorithm.norm_adv_by_std_in_grpo=yes", "must be True or False"),
        ("trainer.balance_batch=2", "balance_batch=2 must be True or False"),
        ("data.seed=abc", r"data\.seed='abc' must be a whole number"),
        (f"{ACTOR}.optim.lr=1e-6x", r"optim\.lr='1e-6x' must be a number"),
        (f"{ACTOR}.optim.lr=nan", r"optim\.lr=nan must be a number"),
        (f"{ACTOR}.clip_ratio_low=null", r"clip_ratio_low=None must be a number"),
        (f"{ACTOR}.use_kl_loss=on-ish", "must be True or False"),
        (f"{ROLLOUT}.temperature=[1]", r"temperature=\[1\] must be a number"),
        (f"{ROLLOUT}.n=true", r"rollout\.n=True must be a whole number"),
        ("trainer.n_gpus_per_node=two", r"n_gpus_per_node='two' must be"),
        ("algorithm.filter_groups=True", r"filter_groups=True must be a group of settings"),
        ("data.apply_chat_template_kwargs=3", "kwargs=3 must be a group of settings"),
        ("data.apply_chat_template_kwargs=null", "kwargs=None must be a group of settings"),
        ("ray_kwargs.ray_init=null", "ray_init=None must be a group of settings"),
        ("trainer.v1.rsp_sync.forget_data_position=no", "'no' must be True or False"),
        (f"{ACTOR}.checkpoint.save_contents=model", "='model' must be a list"),
        ("trainer.rollout_data_dir=${nowhere}", r"the config cannot be read: .*nowhere"),
    ],
)
def test_another_type(override: str, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        _check(override)


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        ("trainer.total_epochs=0", r"trainer\.total_epochs=0 must be above 0"),
        ("trainer.total_training_steps=-1", "above 0"),
        ("data.train_batch_size=0", r"data\.train_batch_size=0 must be above 0"),
        ("data.max_prompt_length=-5", "above 0"),
        ("data.max_response_length=0", "above 0"),
        ("data.dataloader_num_workers=-1", "0 or more"),
        ("data.seed=-1", r"data\.seed=-1 must be 0 or more"),
        (f"{ACTOR}.ppo_mini_batch_size=0", "above 0"),
        (f"{ACTOR}.ppo_epochs=0", "above 0"),
        (f"{ACTOR}.optim.lr=-1e-6", r"optim\.lr=-1e-06 must be 0 or more"),
        (f"{ACTOR}.clip_ratio_low=-0.2", "0 or more"),
        (f"{ROLLOUT}.n=0", r"rollout\.n=0 must be above 0"),
        (f"{ROLLOUT}.temperature=0", r"rollout\.temperature=0 must be above 0"),
        (f"{ROLLOUT}.top_p=0", "above 0 and not above 1"),
        (f"{ROLLOUT}.top_p=1.5", "above 0 and not above 1"),
        (f"{ROLLOUT}.top_k=-2", "-1 .all tokens. or more"),
        (f"{ROLLOUT}.gpu_memory_utilization=80", "above 0 and not above 1"),
        (f"{ROLLOUT}.val_kwargs.n=0", "above 0"),
        (f"{ROLLOUT}.val_kwargs.temperature=-1", "0 or more"),
        (f"{ROLLOUT}.tensor_model_parallel_size=0", "above 0"),
        ("trainer.nnodes=0", r"trainer\.nnodes=0 must be above 0"),
        ("reward.num_workers=0", "above 0"),
        (f"{ACTOR}.fsdp_config.fsdp_size=0", "-1 .all ranks. or above 0"),
        (f"{ROLLOUT}.prompt_length=abc", r"prompt_length=abc must be above 0"),
        (f"{ROLLOUT}.max_model_len=true", r"max_model_len=True must be above 0"),
        ("ray_kwargs.ray_init.num_cpus=abc", "above 0"),
        ("trainer.v1.rsp_sync.poll_interval_s=0", "above 0"),
        ("actor_rollout_ref.model.lora_rank=-1", "0 or more"),
        ("transfer_queue.backend.SimpleStorage.num_data_storage_units=0", "above 0"),
    ],
)
def test_beyond_the_range(override: str, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        _check(override)
