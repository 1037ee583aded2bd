"""verl's asynchronous trainer: rollouts that are not done go on under the next policy."""

from __future__ import annotations

import logging
from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync

from rsp_rl.training.verl_plugin.resuming import ResumingClient
from rsp_rl.training.verl_plugin.trainer import CheckingTrainer

logger = logging.getLogger(__name__)

#: verl's counts of groups that it leaves out, and what an error calls them.
_LEFT_OUT = {
    "training/off_policy/evicted_samples": (
        "are older than trainer.v1.sampler.max_off_policy_threshold updates"
    ),
    "training/rollout_failure/evicted_samples": (
        "failed, which is in the logs of the agent loop workers"
    ),
}


@register_trainer("rsp_async")
class AsyncSoftPromptTrainer(CheckingTrainer, PPOTrainerColocateAsync):
    """A step begins when enough groups are done, and an update interrupts the others.

    `trainer.v1.colocate_async.num_warmup_batches` are under way beside the step's own.
    """

    verls_mode = "colocate_async"
    knows_versions = True

    def get_llm_client(self) -> ResumingClient:
        """See `PPOTrainer.get_llm_client`."""
        return self.llm_server_manager.get_client(client_cls=ResumingClient)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        for name, why in _LEFT_OUT.items():
            if count := metrics.get(name):
                logger.warning(
                    "step %s leaves out %d prompts that %s; others were taken in their place",
                    *(self.global_steps, count, why),
                )
        return super()._compute_old_log_prob(batch, metrics)
