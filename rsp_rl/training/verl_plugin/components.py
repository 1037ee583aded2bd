"""Registers the RSP parts with verl; importing this module is what asks for them.

A run names it as `actor_rollout_ref.model.external_lib`, which verl imports in the task runner,
the actors, the agent-loop workers and the rollout servers. Each part checks by itself that it is
needed: without a soft prompt record in a sample, all of them behave as verl's own.
"""

from verl.utils.device import get_device_name
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplicaRegistry

from rsp_rl.console import events
from rsp_rl.training.plugins import check_plugins
from rsp_rl.training.verl_plugin import (
    actor_engine,
    agent_loop,
    async_trainer,
    cpu_engine,
    trainer,
)

__all__ = ["actor_engine", "agent_loop", "async_trainer", "cpu_engine", "trainer"]

# Each process has verl's plug-ins loaded, or not, by itself; on another node maybe by another
# installation.
check_plugins(get_device_name())


def _load_replica() -> type:
    # Loaded where a rollout server is made: vLLM is heavy, and actors need none of it.
    from rsp_rl.training.verl_plugin.rollout_server import SoftPromptVLLMReplica

    return SoftPromptVLLMReplica


# Under verl's own name: other parts of verl compare it with "vllm".
RolloutReplicaRegistry.register("vllm", _load_replica)
# verl has no function that adds to this table. Named, not imported, for the same reason.
base._ROLLOUT_REGISTRY["vllm", "async"] = "rsp_rl.training.verl_plugin.weight_sync.OwnSocketAdapter"

events.tell_warnings()
