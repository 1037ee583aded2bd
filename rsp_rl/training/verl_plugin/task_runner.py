"""verl's task runner with our trainer registered before it looks for it, and watched."""

from __future__ import annotations

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1

from rsp_rl.console import events
from rsp_rl.training.cpus import cpus_needed
from rsp_rl.training.trackers import check_trackers
from rsp_rl.training.verl_plugin.cluster import wait_for_cluster
from rsp_rl.training.verl_plugin.loading import check_loading
from rsp_rl.training.verl_plugin.nodes import check_nodes
from rsp_rl.training.verl_plugin.watchdog import Progress, watch


@ray.remote
class TaskRunner:
    """Runs verl's `TaskRunnerV1` in its own process.

    verl resolves `trainer.v1.trainer_mode` before anything imports `external_lib`. Ray does not
    let an actor class be subclassed, hence the instance.
    """

    def run(self, config: DictConfig) -> None:
        """Train to the end; see `TaskRunnerV1.run`.

        Raises:
            RunBrokenError: If a part of the run died or hangs, or another run uses the cluster.
            ConfigError: If the cluster has too few CPUs, or something that the config names is not
                on it.
        """
        from rsp_rl.training.verl_plugin import components  # noqa: F401  (registers)

        check_loading(config)
        check_trackers(config)
        events.tell("stage", name="data")
        ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
        wait_for_cluster(ranks, cpus_needed(config))
        check_nodes(config)
        runner = TaskRunnerV1.__ray_actor_class__()
        start = Progress()
        watch(
            lambda: runner.run(config),
            progress=lambda: runner.trainer.progress if runner.trainer else start,
            timeout_s=config.trainer.v1.rsp_sync.phase_timeout_s,
        )
