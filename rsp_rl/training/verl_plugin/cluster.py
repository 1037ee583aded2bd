"""A Ray cluster that outlives its runs: what a run must wait for."""

from __future__ import annotations

import time

import ray
from verl.plugin.platform import get_platform

from rsp_rl.basics.errors import ConfigError, RunBrokenError
from rsp_rl.training.cpus import too_few

#: How long the processes of a run that just ended may take to go.
WAIT_S = 60.0


def wait_for_cluster(ranks: int, cpus: int) -> None:
    """Wait until the processes of an earlier run are gone; called where the trainer will run.

    verl takes what it finds: it gives up at once when devices are not yet free, joins another
    run's TransferQueue, of which a cluster has one, and waits for ever for CPUs.

    Args:
        ranks: Devices that the run needs.
        cpus: CPUs that it reserves, `rsp_rl.training.cpus.cpus_needed`.

    Raises:
        RunBrokenError: If another run goes on.
        ConfigError: If the cluster has too few CPUs.
    """
    deadline = time.monotonic() + WAIT_S
    while (in_use := _transfer_queue_is_in_use()) or _free_devices() < ranks or _cpus() < cpus:
        if time.monotonic() > deadline:
            if in_use:
                raise RunBrokenError(
                    "another run uses this Ray cluster, and verl's TransferQueue can serve one run "
                    "a cluster; wait for that run, stop it, or use a cluster of its own"
                )
            if (found := _cpus()) < cpus:
                raise ConfigError(too_few(cpus, f"this Ray cluster has {found:g}"))
            return  # verl says how many devices it misses
        time.sleep(0.5)


def _transfer_queue_is_in_use() -> bool:
    try:
        ray.get_actor("TransferQueueController", namespace="transfer_queue")
    except ValueError:
        return False
    return True


def _free_devices() -> float:
    return ray.available_resources().get(get_platform().ray_resource_name(), 0)


def _cpus() -> float:
    return ray.cluster_resources().get("CPU", 0)
