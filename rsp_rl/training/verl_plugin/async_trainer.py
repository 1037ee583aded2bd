"""verl's asynchronous trainer: rollouts that are not done go on under the next policy."""

from __future__ import annotations

import logging
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync

from rsp_rl.basics.errors import RunBrokenError
from rsp_rl.training.asynchronous import ASYNCHRONOUS
from rsp_rl.training.verl_plugin.evictions import Evictions, watch_evictions
from rsp_rl.training.verl_plugin.resuming import ResumingClient
from rsp_rl.training.verl_plugin.trainer import CheckingTrainer

logger = logging.getLogger(__name__)

#: Batches of failed groups without a usable one beside them that are enough.
MOST_FAILED = 3

#: verl's counts of groups that it leaves out, and what an error calls them.
_LEFT_OUT = {
    "training/off_policy/evicted_samples": (
        "are older than trainer.v1.sampler.max_off_policy_threshold updates"
    ),
    "training/rollout_failure/evicted_samples": (
        "failed, which is in the logs of the agent loop workers"
    ),
}


@register_trainer(ASYNCHRONOUS)
class AsyncSoftPromptTrainer(CheckingTrainer, PPOTrainerColocateAsync):
    """A step begins when enough groups are done, and an update interrupts the others.

    `trainer.v1.colocate_async.num_warmup_batches` are under way beside the step's own.
    """

    verls_mode = "colocate_async"
    knows_versions = True

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        give_up_on_failures(self.replay_buffer, config.data.train_batch_size)

    def _load_checkpoint(self) -> None:
        """See `PPOTrainer._load_checkpoint`; what the checkpoint has trained on goes.

        verl saves before it clears the step's batch, and would carry it along for ever.
        """
        super()._load_checkpoint()
        held = (tq.kv_list("train") or {}).get("train", {})
        under_way = {key for key, tag in held.items() if tag.get("is_prompt", False)}
        if trained := [key for key in held if key.split("_")[0] not in under_way]:
            tq.kv_clear(keys=trained, partition_id="train")

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


def give_up_on_failures(buffer: ReplayBuffer, batch: int) -> None:
    """Have a buffer end the run when its groups fail, one after the other; in place.

    verl takes other prompts in the place of a group with a failed rollout, and where all fail for
    one reason it would do so for ever.

    Args:
        buffer: verl's own.
        batch: Groups in a batch.
    """

    def judge(found: Evictions) -> None:
        if found.failed >= MOST_FAILED * batch and not found.usable:
            raise RunBrokenError(
                f"{found.failed} groups of this step failed and none was usable: the reason is in "
                "the logs of the agent loop workers"
            )

    watch_evictions(buffer, judge)
