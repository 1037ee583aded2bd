"""A Ray cluster that outlives its runs: what a run must wait for."""

from __future__ import annotations

import time

import ray
from verl.plugin.platform import get_platform

from rsp_rl.basics.errors import RunBrokenError

#: How long the processes of a run that just ended may take to go.
WAIT_S = 60.0


def wait_for_cluster(ranks: int) -> None:
    """Wait until the processes of an earlier run are gone; called where the trainer will run.

    verl takes what it finds: it gives up at once when devices are not yet free, and joins another
    run's TransferQueue, of which a cluster has one.

    Args:
        ranks: Devices that the run needs.

    Raises:
        RunBrokenError: If another run goes on.
    """
    deadline = time.monotonic() + WAIT_S
    while (in_use := _transfer_queue_is_in_use()) or _free_devices() < ranks:
        if time.monotonic() > deadline:
            if in_use:
                raise RunBrokenError(
                    "another run uses this Ray cluster, and verl's TransferQueue can serve one run "
                    "a cluster; wait for that run, stop it, or use a cluster of its own"
                )
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
