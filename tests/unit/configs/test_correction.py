"""The groups of `+correction=...` are verl's presets, value by value, and run with soft prompts."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable

import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.config.algorithm import RolloutCorrectionConfig
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.utils.config import omega_conf_to_dataclass

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import CONFIGS
from rsp_rl.training import dry_run
from rsp_rl.training.configs import compose_config
from rsp_rl.training.preflight import check_guard_support

#: By verl's own name, that of the group. Those of its bypass mode are refused (below), and
#: `disabled` is what runs without a group.
GROUPS = {
    "decoupled_token_is": "tis",
    "decoupled_seq_is": "seq_is",
    "decoupled_token_icepop": "token_icepop",
    "decoupled_seq_is_rs": "seq_is_rs",
    "decoupled_geo_rs": "geo_rs",
    "decoupled_geo_rs_seq_tis": "geo_rs_seq_tis",
    "decoupled_geo_rs_token_tis": "geo_rs_token_tis",
    "decoupled_k3_rs": "k3_rs",
    "decoupled_k3_rs_seq_tis": "k3_rs_seq_tis",
    "decoupled_k3_rs_token_tis": "k3_rs_token_tis",
}
BYPASS = (
    *("bypass_ppo_clip", "bypass_ppo_clip_geo_rs", "bypass_ppo_clip_k3_rs", "bypass_pg_is"),
    *("bypass_pg_token_icepop", "bypass_pg_geo_rs", "bypass_pg_geo_rs_seq_tis"),
    "bypass_pg_geo_rs_token_tis",
)

GPUS = ("+machine=gpu", "actor_rollout_ref.model.path=Qwen/Qwen2.5-Math-7B")
GPUS += ("trainer.n_gpus_per_node=4",)


def _presets() -> dict[str, Callable[[], RolloutCorrectionConfig]]:
    own = inspect.getmembers(RolloutCorrectionConfig, inspect.ismethod)
    return {name: method for name, method in own if name in vars(RolloutCorrectionConfig)}


def _values(preset: RolloutCorrectionConfig) -> dict[str, object]:
    values = dataclasses.asdict(preset)
    del values["_target_"]
    return values


def test_verl_has_these_presets_and_no_others() -> None:
    assert set(_presets()) == {*GROUPS, *BYPASS, "disabled"}


def test_each_has_its_group() -> None:
    files = {file.stem for file in (CONFIGS / "correction").glob("*.yaml")}
    assert files == set(GROUPS.values())


@pytest.mark.parametrize("preset", [*GROUPS, "disabled"])
def test_its_values_are_verls(preset: str) -> None:
    """As verl reads them: together with its own defaults."""
    group = [f"+correction={GROUPS[preset]}"] if preset in GROUPS else []
    config = compose_config("dapo_rsp", group)
    read = omega_conf_to_dataclass(config.algorithm.rollout_correction, RolloutCorrectionConfig)
    assert _values(read) == _values(_presets()[preset]())


@pytest.mark.parametrize("group", GROUPS.values())
def test_verls_function_computes_with_it(group: str) -> None:
    """Of four rollouts the actor finds one twice as likely in every token."""
    actor = torch.full((4, 6), -1.0)
    rollout = actor.clone()
    rollout[3] -= math.log(2)
    data = DataProto.from_dict(
        {"old_log_probs": actor, "rollout_log_probs": rollout, "response_mask": torch.ones(4, 6)}
    )
    correction = compose_config("dapo_rsp", [f"+correction={group}"]).algorithm.rollout_correction
    corrected, metrics = compute_rollout_correction_and_add_to_batch(data, correction)
    assert metrics
    kept = corrected.batch["response_mask"].sum(dim=1).tolist()
    weights = corrected.batch.get("rollout_is_weights")
    parts = group.split("_")
    assert kept == [6, 6, 6, 0 if "rs" in parts else 6]
    if group in ("geo_rs", "k3_rs"):
        assert weights is None
    else:
        assert weights[:3].tolist() == [[1.0] * 6] * 3
        if "rs" not in parts:
            assert weights[3].tolist() == pytest.approx([2.0] * 6)


@pytest.mark.parametrize("group", GROUPS.values())
def test_it_passes_the_checks_and_the_dry_run(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compared with what was sampled from, and rollouts are not rejected for their truncation."""
    overrides = [*GPUS, f"+correction={group}"]
    rollout = compose_config("dapo_rsp", overrides).actor_rollout_ref.rollout
    assert rollout.logprobs_mode == "processed_logprobs"
    assert rollout.top_k == (-1 if "rs" in group.split("_") else 50)
    assert dry_run.main(overrides) == 0
    assert "\nalgorithm.rollout_correction: {" in capsys.readouterr().out


@pytest.mark.parametrize("preset", BYPASS)
def test_bypass_is_refused(preset: str) -> None:
    """It takes the rollout's log-probs for the actor's, so that a forgotten H would go unseen."""
    config = compose_config("dapo_rsp")
    values = _values(_presets()[preset]())
    config.algorithm.rollout_correction = OmegaConf.create(values)
    with pytest.raises(ConfigError, match=r"bypass_mode=True: the guard compares"):
        check_guard_support(config)
