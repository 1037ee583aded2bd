"""Trackers that a run logs to: whether they can work, asked before any engine starts.

verl opens them once all engines run: a missing package, key or network then costs the start-up.
"""

from __future__ import annotations

import logging
import netrc
import os
import socket
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError

logger = logging.getLogger(__name__)

#: The tracker whose file is the run's own record.
OWN = "file"

#: By tracker that verl knows: the package that it needs.
PACKAGES = {
    "console": None,
    "file": None,
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "tracking": "wandb",  # verl's old name for it
    "swanlab": "swanlab",
    "mlflow": "mlflow",
    "clearml": "clearml",
    "trackio": "trackio",
    "vemlp_wandb": "volcengine_ml_platform",
    "rl_insight": "rl_insight",
}

#: Variables that a tracker must have in its process.
_VARIABLES = {
    "vemlp_wandb": ("VOLC_ACCESS_KEY_ID", "VOLC_SECRET_ACCESS_KEY", "MLP_TRACKING_REGION"),
}

#: Trackers that send to a host: the variable for their mode and its values that send nothing, the
#: variables that hold a key, and where that variable or nothing says which host it is.
_HOSTED = {
    "wandb": (
        *("WANDB_MODE", ("offline", "dryrun", "disabled")),
        *(("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"), "WANDB_BASE_URL"),
        "https://api.wandb.ai",
    ),
    "swanlab": (
        *("SWANLAB_MODE", ("offline", "local", "disabled")),
        *(("SWANLAB_API_KEY",), "SWANLAB_API_HOST"),
        "https://api.swanlab.cn",
    ),
}
_NETRC = {"wandb": "~/.netrc", "swanlab": "~/.swanlab/.netrc"}
_WAIT_S = 5.0

_ELSEWHERE = (
    "a Ray job or cluster does not carry your shell's variables: set it where Ray was started, or "
    "with +ray_kwargs.ray_init.runtime_env.env_vars"
)


def add_own_record(config: DictConfig) -> None:
    """Have the run's own record among its trackers, in place: all else reads it."""
    names = tracker_names(config)
    if OWN not in names:
        config.trainer.logger = [*names, OWN]
        logger.info("trainer.logger=%s: added %s, which metrics.jsonl comes from", names, OWN)


def tracker_names(config: DictConfig) -> list[str]:
    """The run's trackers; verl takes one, or several."""
    names = OmegaConf.select(config, "trainer.logger") or []
    return [names] if isinstance(names, str) else [str(name) for name in names]


def check_trackers(config: DictConfig, environment: Mapping[str, str] | None = None) -> None:
    """Make sure that the trackers can work.

    Args:
        config: The composed config.
        environment: Variables of the process that they will work in; default: this one's.

    Raises:
        ConfigError: Naming the tracker, what it lacks and how to do without.
    """
    variables = os.environ if environment is None else environment
    for name in tracker_names(config):
        if name not in PACKAGES:
            raise ConfigError(
                f"trainer.logger names {name!r}, which is no tracker; use of {sorted(PACKAGES)}"
            )
        package = PACKAGES[name]
        if package is not None and find_spec(package) is None:
            raise ConfigError(
                f"trainer.logger names {name}, which needs the package {package}: install it, or "
                f"leave {name} out of trainer.logger"
            )
        for variable in _VARIABLES.get(name, ()):
            if not variables.get(variable):
                raise ConfigError(
                    f"trainer.logger names {name}, but {variable} is not set here; {_ELSEWHERE}"
                )
        hosted = "wandb" if name == "tracking" else name
        if hosted in _HOSTED:
            _check_hosted(hosted, config.trainer, variables)


def _check_hosted(name: str, trainer: DictConfig, variables: Mapping[str, str]) -> None:
    mode, quiet, keys, host_variable, host = _HOSTED[name]
    if variables.get(mode, "").lower() in quiet:
        return
    without = f"set {mode}={quiet[0]}, or leave {name} out of trainer.logger"
    url = urlsplit(variables.get(host_variable) or host)
    if not any(variables.get(key) for key in keys) and not _logged_in(
        name, url.hostname or "", variables
    ):
        raise ConfigError(
            f"trainer.logger names {name}, and there is no key for it ({keys[0]}, or a login in "
            f"{_NETRC[name]}) on {socket.gethostname()}; {_ELSEWHERE}; or {without}"
        )
    proxies = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    if trainer.get("wandb_proxy") or any(variables.get(proxy) for proxy in proxies):
        return  # who is behind it cannot be asked from here
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname, port), _WAIT_S).close()
    except OSError as error:
        raise ConfigError(
            f"trainer.logger names {name}, and {url.hostname} does not answer "
            f"{socket.gethostname()} ({error}); {without}"
        ) from error


def _logged_in(name: str, host: str, variables: Mapping[str, str]) -> bool:
    file = Path(variables.get("NETRC") or _NETRC[name]).expanduser()
    try:
        return netrc.netrc(file).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
