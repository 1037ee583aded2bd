"""Processes for verl's helper actors, started before verl asks for them.

verl makes its actors one after the other, and each new process spends some ten seconds on importing
verl, torch and vLLM before the next one is made. Ray puts an actor into an idle process of the same
job and runtime environment if there is one: these import while the trainer waits for the model.
"""

from __future__ import annotations

import ray
from omegaconf import DictConfig


@ray.remote(num_cpus=0)
def _import_verl() -> None:
    from rsp_rl.verl_plugin import components  # noqa: F401


def prewarm(config: DictConfig) -> None:
    """Start the processes of this node's helper actors; returns at once.

    Those of TransferQueue's storage, the agent loops and the rewards; the model's and the rollout
    server's have runtime environments of their own and cannot be started before their actors.

    Args:
        config: The run's. On a cluster verl spreads these actors over the nodes, hence the share.
    """
    actors = (
        config.transfer_queue.backend.SimpleStorage.num_data_storage_units
        + config.actor_rollout_ref.rollout.agent.num_workers
        + config.reward.num_workers
    )
    for _ in range(-(-actors // config.trainer.nnodes)):
        _import_verl.remote()
