"""One run a folder, claimed before anything is written there; its config kept once it may start.

Two runs in one folder would both end well, over each other's metrics and checkpoints. And a start
that is refused must leave the folder as it was: evaluation reads which model a run began with, and
how long it is, from the config that lies there. Hydra would write it before anybody can object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import locked, write_whole


@contextmanager
def claimed(config: DictConfig) -> Iterator[None]:
    """Keep other runs out of `run_dir`; the claim ends with the process, however it ends.

    Raises:
        ConfigError: If there is no such name.
        RunFolderError: If another run is at work there.
    """
    if not isinstance(config.run_dir, str) or not config.run_dir.strip():
        raise ConfigError(f"run_dir={config.run_dir!r} names no folder; give the run one")
    with locked(Path(config.run_dir).resolve()):
        yield


def keep_config(config: str, folder: Path) -> None:
    """Leave what Hydra composed in `config/`: `config.yaml`, `hydra.yaml`, `overrides.yaml`.

    Args:
        config: The config as it was composed, as YAML.
        folder: The run's.
    """
    kept = folder / "config"
    kept.mkdir(parents=True, exist_ok=True)
    launched = HydraConfig.instance().cfg
    write_whole(kept / "config.yaml", config)
    write_whole(kept / "hydra.yaml", OmegaConf.to_yaml(launched))
    write_whole(kept / "overrides.yaml", OmegaConf.to_yaml(launched.hydra.overrides.task))
