"""verl's task runner with our trainer registered before it looks for it."""

from __future__ import annotations

import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1


@ray.remote
class TaskRunner:
    """Runs verl's `TaskRunnerV1` in its own process.

    verl resolves `trainer.v1.trainer_mode` before anything imports `external_lib`. Ray does not
    let an actor class be subclassed, hence the instance.
    """

    def run(self, config: DictConfig) -> None:
        """Train to the end; see `TaskRunnerV1.run`."""
        from rsp_rl.verl_plugin import components  # noqa: F401  (registers)

        TaskRunnerV1.__ray_actor_class__().run(config)
