"""Whatever a run's settings name by module and name, loaded before any engine is.

verl loads it where it is first needed, minutes later and in processes that then count as dead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
from verl.trainer.ppo.reward import resolve_reward_manager_cls
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.import_utils import load_class_from_fqn, load_extern_object

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.loading import load
from rsp_rl.grading.reward import compute_score
from rsp_rl.training.plugins import check_plugins

#: Settings that name a file (or `pkg://` module), and of it a class or function.
_OBJECTS = {
    "reward.custom_reward_function.path": "reward.custom_reward_function.name",
    "data.custom_cls.path": "data.custom_cls.name",
    "trainer.v1.sampler.custom_sampler.path": "trainer.v1.sampler.custom_sampler.name",
}
_AGENT_LOOP_MANAGER = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"
_MODULES = "actor_rollout_ref.model.external_lib"
_OPTIMIZER = "actor_rollout_ref.actor.optim.optimizer"

_REWARD = "reward.custom_reward_function.path"

#: Reward managers of verl's that call a reward function with these.
_MANAGERS = ("naive", "dapo")
_ARGUMENTS = ("data_source", "solution_str", "ground_truth", "extra_info")

#: Settings whose value something is registered as.
_REGISTERED = {
    "algorithm.adv_estimator": get_adv_estimator_fn,
    "actor_rollout_ref.actor.policy_loss.loss_mode": get_policy_loss_fn,
}

#: What verl makes an object of, in a process of its own.
_PARTS = ("actor_rollout_ref.actor", "actor_rollout_ref.rollout", "algorithm")


def check_loading(config: DictConfig) -> None:
    """Load plug-ins, modules, classes and functions that the config names.

    Raises:
        ConfigError: Naming the setting, what was looked for, and the error of its own import.
    """
    check_plugins(config.trainer.device)
    modules = OmegaConf.select(config, _MODULES) or []
    for module in [modules] if isinstance(modules, str) else modules:
        load(f"{_MODULES}={module}", lambda module=module: import_module(module))
    for path_key, name_key in _OBJECTS.items():
        path, name = (OmegaConf.select(config, key) for key in (path_key, name_key))
        if path:
            what = f"{name_key}={name} of {path_key}={path}"
            found = load(what, lambda path=path, name=name: load_extern_object(path, str(name)))
            if not callable(found):
                raise ConfigError(f"{what} is a {type(found).__name__}, nothing to be called")
            if path_key == _REWARD and config.reward.reward_manager.name in _MANAGERS:
                _check_call(what, found, config)
    if name := OmegaConf.select(config, _AGENT_LOOP_MANAGER):
        load(f"{_AGENT_LOOP_MANAGER}={name}", lambda: load_class_from_fqn(name))
    manager = config.reward.reward_manager
    load(f"reward.reward_manager.name={manager.name}", lambda: resolve_reward_manager_cls(config))
    for name, look_up in _REGISTERED.items():
        value = OmegaConf.select(config, name)
        load(f"{name}={value}", lambda look_up=look_up, value=value: look_up(str(value)))
    optim = config.actor_rollout_ref.actor.optim
    what = f"{_OPTIMIZER}={optim.optimizer} of optimizer_impl={optim.optimizer_impl}"
    load(what, lambda: getattr(import_module(optim.optimizer_impl), optim.optimizer))
    for part in _PARTS:  # a setting that verl does not know is an error of its worker's
        load(part, lambda part=part: omega_conf_to_dataclass(OmegaConf.select(config, part)))


def _check_call(what: str, function: Callable[..., Any], config: DictConfig) -> None:
    """Make sure that a reward function takes what it is called with.

    Raises:
        ConfigError: Naming the argument that it lacks or does not know.
    """
    given = config.reward.custom_reward_function.get("reward_kwargs") or {}
    parameters = inspect.signature(function).parameters
    unknown = [name for name in given if name not in parameters]
    if function is compute_score and unknown:  # which takes anything, for verl's sake
        raise ConfigError(f"reward.custom_reward_function.reward_kwargs.{unknown[0]} is none of it")
    try:
        inspect.signature(function).bind(**dict.fromkeys(_ARGUMENTS), **given)
    except TypeError as error:
        raise ConfigError(
            f"{what} cannot be called with {', '.join((*_ARGUMENTS, *given))}: {error}"
        ) from error
