"""The configs, composed: ours, and verl's that they build on.

verl's lie where `${verl_configs:}` says, on each of our configs' `hydra.searchpath`. Hydra's own
`pkg://verl.trainer.config` would import verl, with torch and Ray, to read YAML files; to find their
folder takes no import.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import CONFIGS

#: What Hydra raises for overrides that it does not accept, some of it without a class of its own.
NO_CONFIG = (HydraException, OmegaConfBaseException, ValueError)


def name_verl_configs() -> None:
    """Make `${verl_configs:}` known; before Hydra composes a config."""
    OmegaConf.register_new_resolver("verl_configs", _verl_configs, replace=True)


def _verl_configs() -> str:
    spec = find_spec("verl")  # a top-level name is looked for without importing anything
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("verl, whose configs ours build on, is not installed: pip install verl")
    return str(Path(spec.submodule_search_locations[0]) / "trainer" / "config")


def compose_config(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The config that `rsp_rl.training.train` would get.

    Raises:
        ConfigError: If Hydra does not accept it.
    """
    name_verl_configs()
    at_work = GlobalHydra.instance().hydra  # in a run, whose Hydra is one of a kind
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base=None):
            return compose(config_name, overrides=list(overrides))
    except NO_CONFIG as error:
        raise ConfigError(refusal(error)) from error
    finally:
        GlobalHydra.instance().hydra = at_work


def refusal(error: Exception) -> str:
    """Why there is no config, in a line."""
    # Hydra passes what OmegaConf found on under an exception without words.
    cause = " ".join((str(error) or str(error.__cause__)).split())
    return f"the config does not compose: {cause}"
