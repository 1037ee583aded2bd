"""CPUs that a run's processes reserve from Ray: with fewer, verl waits for them and says nothing.

They are Ray's logical ones, a number that Ray is told or counts; reserved ones may be idle. All
other processes of a run (agent loops, reward workers, vLLM's servers) reserve none.
"""

from __future__ import annotations

import os

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError

#: verl's placement group of a rank (`ResourcePoolManager.max_colocate_count`).
PER_RANK = 3

#: TransferQueue's controller.
CONTROLLER = 1


def cpus_needed(config: DictConfig) -> int:
    """How many, with one for each of TransferQueue's storage units."""
    backend = config.transfer_queue.backend
    units = 0
    if backend.storage_backend == "SimpleStorage":
        units = backend.SimpleStorage.num_data_storage_units
    return CONTROLLER + units + PER_RANK * config.trainer.nnodes * config.trainer.n_gpus_per_node


def joins_cluster(config: DictConfig) -> bool:
    """Whether there is a Ray to join: of `RAY_ADDRESS`, which every Ray job has, or `address`."""
    return bool(os.environ.get("RAY_ADDRESS") or config.ray_kwargs.ray_init.get("address"))


def check_cpus(config: DictConfig) -> None:
    """Make sure that a Ray which this process starts has enough.

    Of a cluster that is joined, and where a container's quota hides processors from Ray, the run
    says so when Ray is up (`rsp_rl.training.verl_plugin.cluster`).

    Raises:
        ConfigError: Naming both numbers.
    """
    if joins_cluster(config):
        return
    asked = config.ray_kwargs.ray_init.get("num_cpus")
    found = asked or os.cpu_count() or 1
    needed = cpus_needed(config)
    if found < needed:
        whose = f"ray_kwargs.ray_init.num_cpus={asked}" if asked else f"this machine has {found}"
        raise ConfigError(too_few(needed, whose))


def too_few(needed: int, whose: str) -> str:
    """What to say of it.

    Args:
        needed: CPUs.
        whose: Where there are how many.
    """
    return (
        f"the run's processes reserve {needed} CPUs from Ray and {whose}: verl would wait for "
        f"ever. Set ray_kwargs.ray_init.num_cpus={needed} (a number for Ray's accounts, which may "
        "exceed the processors), or fewer of "
        "transfer_queue.backend.SimpleStorage.num_data_storage_units"
    )
