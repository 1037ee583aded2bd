"""What settings name is loaded before engines start, or named with its own error."""

from __future__ import annotations

import copy
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training import plugins
from rsp_rl.training.configs import compose_config
from rsp_rl.training.verl_plugin.loading import check_loading

REWARD = "reward.custom_reward_function"


@cache
def _composed() -> DictConfig:
    return compose_config("tiny_cpu")


def config(changes: dict[str, object] | None = None) -> DictConfig:
    made = copy.deepcopy(_composed())
    for key, value in (changes or {}).items():
        OmegaConf.update(made, key, value, force_add=True)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "mine.py"
    made.write_text("number = 3\ndef score(**_):\n    return 1.0\n")
    return made


def test_ours_load() -> None:
    check_loading(config())


def test_a_users_function_loads(file: Path) -> None:
    check_loading(config({f"{REWARD}.path": str(file), f"{REWARD}.name": "score"}))


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({f"{REWARD}.name": "compute_scor"}, r"name=compute_scor of .*Object not found"),
        ({f"{REWARD}.path": "pkg://no.such"}, r"ModuleNotFoundError: No module named 'no'"),
        ({f"{REWARD}.path": "/nowhere.py"}, r"path=/nowhere\.py cannot be loaded: FileNotFound"),
        ({"reward.reward_manager.name": "dappo"}, r"name=dappo .*Unknown reward manager: dappo"),
        (
            {"actor_rollout_ref.model.external_lib": ["rsp_rl.training", "no_such_module"]},
            "external_lib=no_such_module cannot be loaded: ModuleNotFoundError",
        ),
        (
            {"actor_rollout_ref.rollout.agent.agent_loop_manager_class": "rsp_rl.No"},
            "agent_loop_manager_class=rsp_rl.No cannot be loaded",
        ),
        ({"data.custom_cls.path": "/nowhere.py"}, r"data\.custom_cls\.path=/nowhere\.py"),
        ({"algorithm.adv_estimator": "grpoo"}, r"adv_estimator=grpoo .*: Unknown .*: grpoo"),
        (
            {"actor_rollout_ref.actor.policy_loss.loss_mode": "gspoo"},
            r"loss_mode=gspoo .*Supported modes are: .*gspo",
        ),
        ({"actor_rollout_ref.actor.optim.optimizer": "AdamV"}, r"=AdamV of .*no attribute"),
        ({"actor_rollout_ref.actor.optim.optimizer": "adamw"}, r"=adamw of .*no attribute"),
        ({"actor_rollout_ref.rollout.max_sequences": 4}, r"rollout cannot .*'max_sequences'"),
        ({"actor_rollout_ref.actor.loss_agg_mode": "tokenmean"}, r"actor cannot .*tokenmean"),
    ],
)
def test_what_does_not_load_is_named(changes: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        check_loading(config(changes))


@pytest.mark.parametrize(
    ("signature", "given", "cause"),
    [
        ("data_source, solution_str, ground_truth, extra_info=None", {}, None),
        ("solution_str, ground_truth, **_", {"weight": 2}, None),
        ("solution_str, ground_truth", {}, "unexpected keyword argument 'data_source'"),
        ("prompts, **_", {}, "missing a required argument: 'prompts'"),
        ("solution_str, weight=1, *, data_source, ground_truth, extra_info", {"w": 2}, "'w'"),
    ],
)
def test_a_reward_that_cannot_be_called(
    file: Path, signature: str, given: dict, cause: str | None
) -> None:
    file.write_text(f"def score({signature}):\n    return 1.0\n")
    made = config({f"{REWARD}.path": str(file), f"{REWARD}.name": "score"})
    OmegaConf.update(made, f"{REWARD}.reward_kwargs", given, force_add=True)
    if cause is None:
        check_loading(made)
        return
    with pytest.raises(ConfigError, match=f"cannot be called with data_source, .*{cause}"):
        check_loading(made)


def test_an_argument_that_our_reward_would_pass_over() -> None:
    check_loading(config({f"{REWARD}.reward_kwargs": {"format_reward": 0.1}}))
    with pytest.raises(ConfigError, match=r"reward_kwargs\.format_rewrd is none of it"):
        check_loading(config({f"{REWARD}.reward_kwargs": {"format_rewrd": 0.1}}))


def test_a_module_that_fails_says_where(file: Path) -> None:
    file.write_text("import math\n1 // 0\n")
    changes = {f"{REWARD}.path": str(file), f"{REWARD}.name": "score"}
    with pytest.raises(ConfigError, match=rf"ZeroDivisionError: .*\({file}, line 2\)"):
        check_loading(config(changes))


def test_what_is_no_function_is_refused(file: Path) -> None:
    changes = {f"{REWARD}.path": str(file), f"{REWARD}.name": "number"}
    with pytest.raises(ConfigError, match="is a int, nothing to be called"):
        check_loading(config(changes))


def test_a_plug_in_that_fails_ends_the_run_with_its_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the node of the trainer, whose plug-ins may be others."""
    bad = EntryPoint("bad", "no_such_plugin", "verl.plugins")
    installed = plugins.entry_points
    monkeypatch.setattr(plugins, "entry_points", lambda group: [*installed(group=group), bad])
    with pytest.raises(ConfigError, match=r"plug-in bad .*No module named 'no_such_plugin'"):
        check_loading(config())
