"""Environment variables as Ray takes them: texts, named by the Ray job or the run, not by both."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import MutableMapping
from typing import Any

from rsp_rl.basics.errors import ConfigError

logger = logging.getLogger(__name__)

#: Where Ray leaves a job's settings for the process that the job starts.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"

#: Has `ray.init` put the run's variables beside the job's: those left, and those that verl hands
#: on, have the job's value anyway.
OVERRIDE = "RAY_OVERRIDE_JOB_RUNTIME_ENV"

#: Names whose values are not for the screen.
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


def make_texts(variables: MutableMapping[str, Any]) -> None:
    """Write numbers and switches, as which Hydra reads `A=1`, as the texts they are; in place.

    Raises:
        ConfigError: For what is no text, naming the variable.
    """
    for name, value in variables.items():
        if isinstance(value, int | float):
            variables[name] = str(value)
        elif not isinstance(value, str):
            raise ConfigError(
                f"ray_kwargs.ray_init.runtime_env.env_vars.{name}={value} is no text; quote it, or "
                "leave it out"
            )


def give_way_to_job(variables: MutableMapping[str, str]) -> None:
    """Leave out what the job sets: its value is the more particular one, and wins; in place.

    Outside of a job nothing happens.

    Args:
        variables: What the run gives all its processes.
    """
    job = json.loads(os.environ.get(JOB_CONFIG) or "{}")
    theirs = (job.get("runtime_env") or {}).get("env_vars") or {}
    if JOB_CONFIG in os.environ:
        os.environ[OVERRIDE] = "1"
    told = []
    for name in sorted(theirs.keys() & variables.keys()):
        ours = variables.pop(name)
        os.environ[name] = theirs[name]
        if ours != theirs[name]:
            shown = f"{name}={theirs[name]} (the run's: {ours})"
            told.append(name if _SECRET.search(name) else shown)
    if told:
        logger.warning(
            "the Ray job's environment variables win over the run's: %s", ", ".join(told)
        )
