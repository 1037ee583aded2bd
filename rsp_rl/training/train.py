"""`rsp-rl train --config-name dapo_rsp [overrides]`: check, fill in, start verl."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from rsp_rl.basics import exit_status
from rsp_rl.basics.errors import ConfigError, KnownError
from rsp_rl.basics.package_files import CONFIGS
from rsp_rl.console import events
from rsp_rl.training.configs import NO_CONFIG, name_verl_configs, refusal
from rsp_rl.training.preloaded_python import Preloaded
from rsp_rl.training.run_claim import claimed, keep_config

# Nothing heavy up here: on a CPU the preloaded Python is to begin its imports at once.


def _preloaded_python(config: DictConfig) -> AbstractContextManager:
    """On a CPU, have Ray's workers forked from a process that has imported what they need.

    `ray_kwargs.ray_init.runtime_env.py_executable=python` starts them as Ray does by itself.
    """
    runtime_env = config.ray_kwargs.ray_init.runtime_env
    own_python = runtime_env.get("py_executable")
    if config.trainer.device != "cpu" or sys.platform != "linux" or own_python:
        return nullcontext()
    # vLLM reads its level when it is imported; to all workers verl gives this one.
    environment = {"VLLM_LOGGING_LEVEL": "WARN", **runtime_env.env_vars}
    preloaded = Preloaded(environment, output=events.pipe())
    with open_dict(config):
        runtime_env.py_executable = preloaded.executable
    return preloaded


def run_training(config: DictConfig) -> None:
    """Start verl with a prepared config and wait for the end."""
    from rsp_rl.training.plugins import check_plugins

    check_plugins(config.trainer.device)  # before Ray, and whatever of verl's asks for a platform
    from verl.trainer.main_ppo import run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config
    from verl.utils.device import auto_set_device

    from rsp_rl.training.verl_plugin.task_runner import TaskRunner

    auto_set_device(config)
    try:
        validate_config(
            config=config,
            use_reference_policy=need_reference_policy(config),
            use_critic=need_critic(config),
        )
    except Exception as error:  # assertions, and whatever Hydra makes of them
        raise ConfigError(f"verl refuses the settings: {' '.join(str(error).split())}") from error
    run_ppo(config, task_runner_class=TaskRunner)


name_verl_configs()


@hydra.main(config_path=str(CONFIGS), config_name="dapo_rsp", version_base=None)
def main(config: DictConfig) -> None:
    """Entry point; see the module's docstring."""
    if config.console == "full":
        os.environ.pop(events.VARIABLE, None)
    elif events.VARIABLE in os.environ:
        # What several processes print is each one's. Ray reads it when it is imported.
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    with _preloaded_python(config), ExitStack() as held:
        _train(config, held, HydraConfig.get().overrides.task)


def _train(config: DictConfig, held: ExitStack, overrides: Sequence[str] = ()) -> None:
    from rsp_rl.training.changed_settings import tell_changed
    from rsp_rl.training.misspelt import check_added
    from rsp_rl.training.preparation import prepare

    composed = OmegaConf.to_yaml(config)
    try:
        check_added(overrides)
        held.enter_context(claimed(config))
        run = prepare(config)
    except (KnownError, OSError, ValueError) as error:
        _end(error, exit_status.WOULD_COME_AGAIN)
    if OmegaConf.select(config, "trainer.resume_mode") != "disable":
        tell_changed(composed, run.root, run.checkpoints)
    keep_config(composed, run.root)
    events.begin(str(run.logs))
    events.tell_warnings()
    events.tell("stage", name="verl, Ray")
    # Now: verl reads the platform from the environment when it is first imported, and before Ray's
    # first import it sets what that reads.
    import verl  # noqa: F401
    from ray.exceptions import RayActorError

    from rsp_rl.training.causes import creation_error, first_line, root_cause, status

    with run.record_start():
        try:
            run_training(config)
        except RayActorError as error:
            if not creation_error(str(error)):
                _end(f"the trainer's own process died. Ray says: {error}", exit_status.BROKEN)
            _end(first_line(error), status(error, stepped=run.has_stepped()))
        except SystemExit as stopped:
            if stopped.code != signal.SIGTERM:
                raise
            # Ray's handler exits with the signal's bare number.
            print("stopped by SIGTERM", file=sys.stderr, flush=True)
            sys.exit(128 + signal.SIGTERM)
        except Exception as error:
            cause, pid = root_cause(error)
            if not isinstance(cause, KnownError):
                traceback.print_exception(error)  # to the logs; the first line is the cause
            _end(first_line(cause, pid), status(cause, stepped=run.has_stepped()))


def _end(error: object, status: int) -> NoReturn:
    """End with one line that names cause and mend; a traceback, remote ones too, would bury it."""
    events.tell("error", text=str(error))
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(status)


def run() -> None:
    """`main`; what Hydra refuses before it calls it is one line, and never retried."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # it would end the process by itself, with 1
    try:
        main()
    except KeyboardInterrupt:  # whoever started this says so; a traceback would bury it
        sys.exit(exit_status.INTERRUPTED)
    except NO_CONFIG as error:
        _end(refusal(error), exit_status.WOULD_COME_AGAIN)
    except OSError as error:  # of making run_dir
        _end(error, exit_status.WOULD_COME_AGAIN)


if __name__ == "__main__":
    run()
