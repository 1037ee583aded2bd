"""verl's trainers with the guard, and with the RSP settings in every checkpoint."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from ray.actor import ActorHandle
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_from_nested

from rsp_rl.basics.errors import RunBrokenError, RunFolderError
from rsp_rl.basics.files import write_whole
from rsp_rl.console import events
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.record import RECORD_FIELD, SoftPromptRecord
from rsp_rl.runs.checkpoints import checkpoint_to_resume, save_law
from rsp_rl.runs.data_order import ROWS, check_order, differences, save_order, saved_order
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.metrics import GAP_MEAN, RESPONSE_LENGTH, REWARD, STEP_SECONDS, held_out_accuracy
from rsp_rl.runs.saving import prune, staged
from rsp_rl.thoughts.laws.multiplex import Multiplex
from rsp_rl.thoughts.record import KIND_FIELD, THOUGHT_FIELD
from rsp_rl.thoughts.rows import Kind
from rsp_rl.training.asynchronous import SYNCHRONOUS
from rsp_rl.training.guard import (
    StepSamples,
    StepThoughts,
    check_gap,
    check_not_forgotten,
    check_soft_prompts,
    check_thoughts,
    has_own_tokens,
    step_metrics,
    tells_of_forgetting,
)
from rsp_rl.training.thought_options import ThoughtOptions
from rsp_rl.training.trackers import tracker_names
from rsp_rl.training.truncation import LOG_MASS_FIELD, TRUNCATION_KEY, Truncation
from rsp_rl.training.verl_plugin.dynamic_sampling import give_up_in_time
from rsp_rl.training.verl_plugin.forgetting import (
    FORGOTTEN_FIELDS,
    FORGOTTEN_KEY,
    SOFT_PROMPTS,
    THOUGHTS,
)
from rsp_rl.training.verl_plugin.resuming import VERSION_FIELD
from rsp_rl.training.verl_plugin.rewards import FAULT, check_rewards
from rsp_rl.training.verl_plugin.rollout_dump import characters_before, rollout_facts
from rsp_rl.training.verl_plugin.thought_dump import MOST_POSITIONS, thought_rows
from rsp_rl.training.verl_plugin.thought_replay import (
    DETACH_KEY,
    DRAWS_FIELD,
    DRAWS_KEY,
    FLIP_FIELD,
    GAP_FIELD,
    GAP_KEY,
    OLD_DRAWS_FIELD,
    draws_of_field,
    flat_draws,
    gap_fields,
)
from rsp_rl.training.verl_plugin.tracking import Guarded, guard_trackers, opening_error
from rsp_rl.training.verl_plugin.watchdog import Progress

logger = logging.getLogger(__name__)

#: Of `trainer.v1`: what both trainers are told.
SETTINGS = "rsp_sync"

#: verl's metrics that take log-probs for tokens'.
_OF_TOKENS = ("rollout_corr/", "training/rollout_probs_diff", "training/rollout_actor_probs")


class CheckingTrainer(PPOTrainer):
    """Before one of verl's trainers: checks each step's rollout against the actor."""

    #: What verl calls the trainer that it stands before.
    verls_mode: ClassVar[str]

    #: Whether a step's tokens may be of several policies, which their samples name.
    knows_versions: ClassVar[bool] = False

    def __init__(self, config: DictConfig) -> None:
        self._options = RspOptions.from_config(config.rsp)
        self._law = ThoughtOptions.from_config(config.get("law"))
        self._truncation = measured_truncation(config)
        self._steps_since_start = 0
        self._facts: dict[str, dict[str, Any]] = {}
        self.progress = Progress()
        filter_groups = config.algorithm.filter_groups
        most_batches = filter_groups.max_num_gen_batches
        with open_dict(config):
            # verl asks for its own names in several places; this trainer is that one.
            config.trainer.v1.trainer_mode = self.verls_mode
            filter_groups.max_num_gen_batches = 0  # verl warns that it ignores it; here it counts
        super().__init__(config)
        self.replay_buffer.poll_interval = config.trainer.v1[SETTINGS].poll_interval_s
        if filter_groups.enable:
            give_up_in_time(
                self.replay_buffer,
                most=most_batches,
                batch=config.data.train_batch_size,
                metric=filter_groups.metric,
            )

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        self._end_with_the_data()
        RunFolder(Path(self.config.run_dir)).note_last_step(self.total_training_steps)
        settings = self.config.trainer.v1[SETTINGS]
        order = OmegaConf.to_container(settings.data_order)
        self._order = {**order, ROWS: len(self.train_dataset)}
        checkpoint = checkpoint_to_resume(self.config)
        saved = (saved_order(checkpoint) if checkpoint else None) or {}
        differing = differences(saved, self._order)
        self._data_begins_anew = bool(differing)
        if ROWS in differing:  # all else was compared before the start
            logger.warning(
                check_order(checkpoint, self._order, forget=settings.forget_data_position)
            )

    def _end_with_the_data(self) -> None:
        """Let the last step be the last that the epochs have prompts for.

        verl would leave its loop before the step that it takes for the last one, without a
        checkpoint and a validation.
        """
        epochs, wanted = self.config.trainer.total_epochs, self.total_training_steps
        steps = self.steps_per_epoch * epochs
        if not 0 < steps < wanted:
            return
        logger.warning(
            "trainer.total_epochs=%s over %s rows end with step %s of trainer.total_training_steps="
            "%s: the run ends there, with a validation and a checkpoint; raise total_epochs for "
            "more",
            epochs,
            len(self.train_dataset),
            steps,
            wanted,
        )
        self.total_training_steps = steps
        for part in ("actor_rollout_ref.actor.optim", "critic.optim"):  # schedules of learning rate
            OmegaConf.update(
                self.config, f"{part}.total_training_steps", steps * self.parameter_sync_step
            )

    def _load_checkpoint(self) -> None:
        loader, mode = self.train_dataloader, self.trainer_mode
        if self._data_begins_anew:
            # Nor are rollouts of the old data trained on, which verl restores in other modes.
            self.train_dataloader, self.trainer_mode = _Anew(), "sync"
        try:
            super()._load_checkpoint()
        finally:
            self.train_dataloader, self.trainer_mode = loader, mode

    def fit(self, agent_loop_manager: AgentLoopManager) -> None:
        """Train; see `PPOTrainer.fit`. From here on the watchdog knows the run's parts."""
        servers = {
            f"vLLM server {replica.replica_rank}, node {node}": server
            for replica in self.llm_server_manager.get_replicas()
            for node, server in enumerate(replica.servers)
        }
        self.progress.parts = {
            **_numbered("actor rank", self.actor_rollout_wg.workers),
            **servers,
            "vLLM load balancer": self.llm_server_manager.global_load_balancer,
            **_numbered("agent loop worker", agent_loop_manager.agent_loop_workers),
            **_numbered("reward worker", self.reward_loop_manager.reward_loop_workers),
        }
        events.tell("steps", total=self.total_training_steps, done=self.global_steps)
        try:
            super().fit(agent_loop_manager)
        except Exception as error:
            if hasattr(self, "logger"):  # verl has opened its trackers, first of all
                raise
            raise opening_error(error, tracker_names(self.config)) from error

    def _validate(self) -> dict[str, float]:
        metrics = super()._validate()
        events.tell("validation", step=self.global_steps, accuracy=held_out_accuracy(metrics))
        return metrics

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)
        shown = {
            "reward": REWARD,
            "tokens": RESPONSE_LENGTH,
            "gap": GAP_MEAN,
            "seconds": STEP_SECONDS,
        }
        numbers = {field: float(metrics[name]) for field, name in shown.items()}
        events.tell("step", step=self.global_steps, **numbers)

    def _enter(self, phase: str) -> None:
        self.progress.enter(f"{phase} of step {self.global_steps}")

    def _init_resource_pool_mgr(self) -> None:
        events.tell("stage", name="actor: processes, model, FSDP")
        super()._init_resource_pool_mgr()

    def on_init_end(self) -> None:
        events.tell("stage", name="first weight sync")
        self._enter("the first weight sync")
        super().on_init_end()

    def on_train_begin(self) -> None:
        self._guard_trackers()
        super().on_train_begin()

    def _guard_trackers(self) -> None:
        guard_trackers(self.logger, tracker_names(self.config))
        for name in ("validation_generations_logger", "dapo_filtered_reward_logger"):
            if not isinstance(tables := getattr(self, name), Guarded):
                setattr(self, name, Guarded(name, tables))

    def on_validate_begin(self) -> None:
        self._guard_trackers()  # here already: the first validation is logged before training
        self._enter("the validation")
        super().on_validate_begin()

    def on_step_begin(self) -> None:
        self._enter("generation")
        super().on_step_begin()

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._enter("the update")
        # verl's batch has other settings by now than when log-probs were computed.
        self._ask_for_draws(batch)
        if self._law.detach_inputs is not None:
            batch.extra_info[DETACH_KEY] = self._law.detach_inputs
        return super()._update_actor(batch, metrics)

    def on_step_end(self) -> None:
        self._enter("the weight sync")
        super().on_step_end()

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._enter("log-probs")
        if self._truncation is not None:
            truncation = (self._truncation.top_k, self._truncation.top_p)
            batch.extra_info[TRUNCATION_KEY] = truncation
        if self._law.enabled:
            batch.extra_info[GAP_KEY] = gap_fields(self._law.law)
            self._ask_for_draws(batch)
        if self._compared:
            batch.extra_info[FORGOTTEN_KEY] = self._compared
        batch = super()._compute_old_log_prob(batch, metrics)
        if self._law.clip_per_draw:
            self._keep_draws(batch)
        for key in (TRUNCATION_KEY, GAP_KEY, FORGOTTEN_KEY):  # the update has no use for them
            batch.extra_info.pop(key, None)
        samples, rewards, records = self._step_samples(batch)
        step = f"step {self.global_steps}"
        check_rewards(samples.rewards.tolist(), rewards, partial(self._sample_name, batch), step)
        lost = self._rollouts_lost(batch)
        metrics["rsp/rollouts_lost"] = float(lost)
        if lost:
            logger.warning(
                "%s trains without %d of its rollouts: their agent loops failed, which is in the "
                "logs of the agent loop workers",
                step,
                lost,
            )
        guarded = step_metrics(samples)
        if has_own_tokens(guarded) and (not self._compared or tells_of_forgetting(guarded)):
            self._steps_since_start += 1
        if self.config.trainer.get("rollout_data_dir"):  # while it is all at hand
            self._facts = rollout_facts(_real_keys(batch), samples, rewards)
        metrics.update(guarded)
        metrics.update(draw_metrics(records, self._options))
        metrics.update(reward_metrics(rewards))
        check_gap(guarded, self._options.guard, self._steps_since_start)
        check_thoughts(guarded, self._law.guard, self._options.guard, self._steps_since_start)
        check_not_forgotten(guarded, self._options.guard, self._steps_since_start)
        check_soft_prompts(guarded, self._options.guard, self._steps_since_start)
        return batch

    def _step_samples(
        self, batch: KVBatchMeta
    ) -> tuple[StepSamples, list[dict[str, Any]], list[SoftPromptRecord]]:
        """This step's real samples from TransferQueue, what the reward said of each, and records.

        Raises:
            RuntimeError: If RSP or a law is on and a sample came without a record.
        """
        keys = _real_keys(batch)
        fields = ["rollout_log_probs", "old_log_probs", "response_mask", "rm_scores"]
        if self._truncation is not None:
            fields.append(LOG_MASS_FIELD)
        if self._law.enabled:
            fields += [KIND_FIELD, *gap_fields(self._law.law)]
        compared = {what: FORGOTTEN_FIELDS[what] for what in self._compared}
        fields += compared.values()
        dense_fields = list(fields)
        if self.knows_versions:
            fields.append(VERSION_FIELD)
            dense_fields.append(VERSION_FIELD)
        if self._options.enabled:
            fields.append(RECORD_FIELD)
        data = tq.kv_batch_get(
            keys=keys, partition_id=batch.partition_id, select_fields=[*fields, "extra_fields"]
        )
        rewards = [
            extra.get("reward_extra_info") or {} for extra in data.pop("extra_fields").tolist()
        ]
        records: list[SoftPromptRecord] = []
        lengths = torch.zeros(len(keys), dtype=torch.int64)
        if self._options.enabled:
            if RECORD_FIELD not in data:
                raise RuntimeError(
                    "training samples arrived without their soft prompt records although "
                    f"rsp.length={self._options.length} and rsp.law={self._options.law}; is "
                    "actor_rollout_ref.rollout.agent."
                    "agent_loop_manager_class set to rsp_rl's SoftPromptAgentLoopManager?"
                )
            records = [SoftPromptRecord.from_tensor(row) for row in data[RECORD_FIELD].unbind()]
            lengths = torch.tensor([record.length for record in records])
        if self._law.enabled and KIND_FIELD not in data:
            raise RuntimeError(
                "training samples arrived without their thoughts although there is a law; is "
                "actor_rollout_ref.rollout.agent.agent_loop_manager_class set to rsp_rl's "
                "SoftPromptAgentLoopManager?"
            )
        mask = data["response_mask"]
        if self._truncation is not None:
            data[LOG_MASS_FIELD] = response_from_nested(data[LOG_MASS_FIELD], mask)
        for name in (GAP_FIELD, FLIP_FIELD, *compared.values()):
            if name in dense_fields:
                data[name] = response_from_nested(data[name], mask)
        dense = {name: data[name].to_padded_tensor(0) for name in dense_fields}
        samples = StepSamples(
            rollout_log_probs=dense["rollout_log_probs"].float(),
            actor_log_probs=dense["old_log_probs"].float(),
            response_mask=dense["response_mask"],
            rewards=dense["rm_scores"].sum(dim=1),
            soft_prompt_lengths=lengths,
            log_mass=dense.get(LOG_MASS_FIELD),
            renormalized=self.config.actor_rollout_ref.rollout.logprobs_mode
            == "processed_logprobs",
            thoughts=self._step_thoughts(dense) if self._law.enabled else None,
            forgotten=dense.get(FORGOTTEN_FIELDS[SOFT_PROMPTS]),
            ages=self.version - dense[VERSION_FIELD] if self.knows_versions else None,
        )
        return samples, rewards, records

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        batch = super()._compute_advantage(batch, metrics)
        if self._law.enabled:  # a thought's log-prob is no token's, and its exponential nothing
            for name in [name for name in metrics if name.startswith(_OF_TOKENS)]:
                del metrics[name]
        return batch

    @property
    def _compared(self) -> tuple[str, ...]:
        """What a step is to say the forgetting of: the first, if it is guarded."""
        if self._steps_since_start or not self._options.guard.steps:
            return ()
        has = {THOUGHTS: self._thinks, SOFT_PROMPTS: self._options.enabled}
        return tuple(what for what, there in has.items() if there)

    @property
    def _thinks(self) -> bool:
        """Whether there is a law whose thoughts are no tokens."""
        return self._law.enabled and not self._law.law.kind.is_token

    def _ask_for_draws(self, batch: KVBatchMeta) -> None:
        if self._law.clip_per_draw:
            batch.extra_info[DRAWS_KEY] = self._law.law.slots

    def _keep_draws(self, batch: KVBatchMeta) -> None:
        """Cut the old log-probs by draw to the responses, as verl does with those of positions."""
        fields = [DRAWS_FIELD, "response_mask"]
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        made = draws_of_field(data[DRAWS_FIELD], self._law.law.slots)
        own = flat_draws(response_from_nested(made, data["response_mask"]))
        fields = TensorDict({OLD_DRAWS_FIELD: own}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    def _step_thoughts(self, dense: dict[str, torch.Tensor]) -> StepThoughts:
        """What `_step_samples` has of thoughts, [B, T] each."""
        kinds = torch.tensor([kind for kind in Kind if not kind.is_token])
        law = self._law.law
        return StepThoughts(
            mask=torch.isin(dense[KIND_FIELD].long(), kinds),
            draws=law.k if isinstance(law, Multiplex) else 1,
            gaps=dense.get(GAP_FIELD),
            flips=dense.get(FLIP_FIELD),
            forgotten=dense.get(FORGOTTEN_FIELDS[THOUGHTS]),
        )

    @property
    def version(self) -> int:
        """Of the policy that this step updates: updates before it."""
        return self.global_steps - 1

    def _rollouts_lost(self, batch: KVBatchMeta) -> int:
        """Rollouts that a step should have and has not; verl fills its batch up with padding."""
        rollouts = {key.rpartition("_")[0] for key in _real_keys(batch)}  # each may have outputs
        wanted = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        return max(0, wanted - len(rollouts))

    def _sample_name(self, batch: KVBatchMeta, number: int) -> str:
        """What an error calls one of this step's real samples: its row, and which rollout of it."""
        key = _real_keys(batch)[number]
        fields = ["data_source", "index", "session_id"]
        data = tq.kv_batch_get(keys=[key], partition_id=batch.partition_id, select_fields=fields)
        source, index, rollout = (data[0][name] for name in fields)
        return (
            f"rollout {rollout} of the row with extra_info.index {index!r} ({source}), uid "
            f"{key.rsplit('_', 2)[0]}"
        )

    def _val_metrics_update(
        self,
        data_sources: list[str],
        sample_uids: list[str],
        reward_extra_infos_dict: dict[str, list[Any]],
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, float]:
        """verl's means, of rewards that are numbers.

        Raises:
            ConfigError: If one is none.
        """
        rewards = reward_extra_infos_dict["reward"]
        faults = reward_extra_infos_dict.get(FAULT, [None] * len(rewards))
        check_rewards(
            rewards,
            [{FAULT: fault} for fault in faults],
            lambda number: f"a sample of {data_sources[number]}, uid {sample_uids[number]}",
            f"the validation at step {self.global_steps}",
        )
        return super()._val_metrics_update(
            data_sources, sample_uids, reward_extra_infos_dict, *args, **kwargs
        )

    def _log_rollout_data(
        self, batch: KVBatchMeta, timing_raw: dict[str, float], rollout_data_dir: str
    ) -> None:
        """Beside verl's samples of step N, what else is to be seen of its rollouts.

        `N.rollouts.jsonl` has what `rollout_facts` says and `before`, of `characters_before`;
        `N.soft_prompts.jsonl` each one's record, and `N.thoughts.jsonl` what `thought_rows` says.
        """
        super()._log_rollout_data(batch, timing_raw, rollout_data_dir)
        folder = Path(rollout_data_dir)
        before: dict[str, int | None] = {}
        if self._options.enabled:
            rollouts, data = self._rollouts(batch, RECORD_FIELD)
            rows = [
                rollout | SoftPromptRecord.from_tensor(encoded).to_dict()
                for rollout, encoded in zip(rollouts, data, strict=True)
            ]
            self._dump(folder / f"{self.global_steps}.soft_prompts.jsonl", rows)
            # Rows that are added stand nowhere in the text.
            inserted = [row for row in rows if row["length"] and not row["added_to"]]
            places = {row["uid"]: (row["start"], row["length"]) for row in inserted}
            prompts = partial(_field_of, batch.partition_id, "prompts")
            if places:
                before = characters_before(places, prompts, self.tokenizer)
        if self._facts:  # log-probs were compared
            told = self._facts.items()
            rows = [{"uid": uid, **facts, "before": before.get(uid)} for uid, facts in told]
            self._dump(folder / f"{self.global_steps}.rollouts.jsonl", rows)
            self._facts = {}
        if self._thinks:
            rollouts, kinds = self._rollouts(batch, KIND_FIELD)
            rows = thought_rows(
                rollouts, kinds, partial(_field_of, batch.partition_id, THOUGHT_FIELD)
            )
            file = folder / f"{self.global_steps}.thoughts.jsonl"
            self._dump(file, rows)
            if without := sum("at" not in row for row in rows):
                logger.warning(
                    "%s has the thoughts of %d rollouts, and of %d how many they were: a step's "
                    "file has %d positions at most",
                    *(file, len(rows) - without, without, MOST_POSITIONS),
                )

    def _rollouts(
        self, batch: KVBatchMeta, field: str
    ) -> tuple[list[dict[str, Any]], list[torch.Tensor]]:
        """This step's real rollouts by prompt and number, and a field of each."""
        keys = _real_keys(batch)
        fields = [field, "rsp_prompt_index", "session_id"]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
        rows = [
            {"uid": uid, "prompt_index": int(index), "rollout": int(rollout)}
            for uid, index, rollout in zip(
                keys, data["rsp_prompt_index"], data["session_id"], strict=True
            )
        ]
        pairs = list(zip(rows, data[field].unbind(), strict=True))
        pairs.sort(key=lambda pair: (pair[0]["prompt_index"], pair[0]["rollout"]))
        return [row for row, _ in pairs], [values for _, values in pairs]

    @staticmethod
    def _dump(file: Path, rows: list[dict[str, Any]]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)  # verl makes it in a thread, maybe later
        write_whole(file, "".join(json.dumps(row) + "\n" for row in rows))

    def _save_checkpoint(self) -> None:
        """verl saves; `rsp_rl.runs.saving` makes sure that what counts is whole, and prunes.

        Raises:
            RunBrokenError: If it could not be saved; the checkpoint before stays the newest.
            RunFolderError: If the ranks do not share the folder.
        """
        self._enter("saving")
        trainer, on_saved = self.config.trainer, self.checkpoint_callback
        checkpoints = Path(trainer.default_local_dir)
        name = f"global_step_{self.global_steps}"
        keep = trainer.max_actor_ckpt_to_keep
        try:
            with staged(checkpoints, self.global_steps) as staging:
                trainer.default_local_dir = str(staging)
                # verl would prune before the new checkpoint counts, and call the user's callback.
                trainer.max_actor_ckpt_to_keep = None
                self.checkpoint_callback = CheckpointCallback()
                super()._save_checkpoint()
                save_law(staging / name, self._options)
                save_order(staging / name, self._order)
        except RunFolderError:
            raise
        except Exception as error:  # a full disk has many: torch's and safetensors' among them
            *_, reason = str(error).strip().splitlines() or [repr(error)]
            raise RunBrokenError(
                f"the checkpoint of step {self.global_steps} could not be saved ({reason}); the "
                f"one before stays the newest. Make room in {checkpoints} and start again with the "
                "same run_dir"
            ) from error
        finally:
            trainer.default_local_dir = str(checkpoints)
            trainer.max_actor_ckpt_to_keep = keep
            self.checkpoint_callback = on_saved
        prune(checkpoints, keep)
        events.tell("checkpoint", step=self.global_steps, path=str(checkpoints / name))
        on_saved.on_save(
            trainer=self, global_step=self.global_steps, checkpoint_dir=str(checkpoints / name)
        )


@register_trainer(SYNCHRONOUS)
class SoftPromptTrainer(CheckingTrainer, PPOTrainerSync):
    """verl's synchronous trainer: all rollouts of a step are of the policy that is updated."""

    verls_mode = "sync"


class _Anew:
    """In the data loader's place where a checkpoint is loaded, but not its place in the data."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begin with the first row."""


def _numbered(name: str, actors: Sequence[ActorHandle]) -> dict[str, ActorHandle]:
    return {f"{name} {number}": actor for number, actor in enumerate(actors)}


def _field_of(partition: str, field: str, keys: Sequence[str]) -> list[torch.Tensor]:
    """A field of these samples."""
    data = tq.kv_batch_get(keys=list(keys), partition_id=partition, select_fields=[field])
    return list(data[field].unbind())


def _real_keys(batch: KVBatchMeta) -> list[str]:
    """Keys of the batch's samples without verl's synthetic padding."""
    tags = zip(batch.keys, batch.tags, strict=True)
    return [key for key, tag in tags if not tag.get("is_padding", False)]


def measured_truncation(config: DictConfig) -> Truncation | None:
    """The truncation whose mass the actor computes beside its log-probs, if any.

    Fused kernels never have the logits that it takes.
    """
    truncation = Truncation.of(config.actor_rollout_ref.rollout)
    fused = config.actor_rollout_ref.model.get("use_fused_kernels", False)
    return truncation if truncation.enabled and not fused else None


def draw_metrics(records: list[SoftPromptRecord], options: RspOptions) -> dict[str, float]:
    """Where the dials stand: means over a step's rollouts with soft prompts.

    Returns:
        `rsp/length_mean` and `rsp/scale_mean`; nothing without such rollouts, and no scale for a
        law without one.
    """
    drawn = [record for record in records if record.length]
    if not drawn:
        return {}
    metrics = {"rsp/length_mean": sum(record.length for record in drawn) / len(drawn)}
    if options.adds:
        metrics["rsp/scale_mean"] = sum(record.std for record in drawn) / len(drawn)
    elif options.std and not LAWS[options.law].from_table:
        scales = [record.std / options.std for record in drawn]
        metrics["rsp/scale_mean"] = sum(scales) / len(scales)
    return metrics


def reward_metrics(rewards: list[dict[str, Any]]) -> dict[str, float]:
    """Sums over a step of what the reward function counts: `reward/timeouts` and the like.

    A reward that is 0 because the grader gave up must not pass for a wrong answer.

    Args:
        rewards: What it said of each rollout; nothing where it returned a mere number.

    Returns:
        `reward/<name>`, and `reward/<name>/rows` where not all rollouts have that count: the sum is
        over so many.
    """
    sums: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for info in rewards:
        for name, value in info.items():
            if isinstance(value, int | float):
                sums[name] += value
                rows[name] += 1
    metrics = {f"reward/{name}": float(total) for name, total in sums.items()}
    partial = {name: count for name, count in rows.items() if count < len(rewards)}
    if partial:
        logger.warning(
            "the reward function gave %s for some rollouts of a step alone: their sums are over "
            "those, reward/<name>/rows of them",
            ", ".join(sorted(partial)),
        )
    return metrics | {f"reward/{name}/rows": float(count) for name, count in partial.items()}
