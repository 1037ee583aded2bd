"""Numbers that no run can go on with, however well typed they are."""

from __future__ import annotations

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"

_Range = tuple[Callable[[float], bool], str]
_ABOVE_0: _Range = (lambda number: number > 0, "above 0")
_FROM_0: _Range = (lambda number: number >= 0, "0 or more")
_SHARE: _Range = (lambda number: 0 < number <= 1, "above 0 and not above 1")
_GROUP: _Range = (lambda number: number == -1 or number > 0, "-1 (all ranks) or above 0")
_TOP_K: _Range = (lambda number: number >= -1, "-1 (all tokens) or more")

#: By setting; what is null is left to its default.
RANGES: dict[str, _Range] = {
    **dict.fromkeys(
        (
            *("data.train_batch_size", "data.max_prompt_length", "data.max_response_length"),
            *("trainer.total_epochs", "trainer.total_training_steps"),
            *("trainer.nnodes", "trainer.n_gpus_per_node"),
            *(f"{_ACTOR}.ppo_mini_batch_size", f"{_ACTOR}.ppo_epochs"),
            *(f"{_ACTOR}.ppo_micro_batch_size_per_gpu", f"{_ACTOR}.ppo_max_token_len_per_gpu"),
            *(f"{_ACTOR}.ulysses_sequence_parallel_size", f"{_ACTOR}.optim.clip_grad"),
            *(f"{_ROLLOUT}.n", f"{_ROLLOUT}.val_kwargs.n", f"{_ROLLOUT}.max_num_seqs"),
            *(f"{_ROLLOUT}.tensor_model_parallel_size", f"{_ROLLOUT}.data_parallel_size"),
            *(f"{_ROLLOUT}.pipeline_model_parallel_size", f"{_ROLLOUT}.agent.num_workers"),
            # verl divides logits by it: greedy rollouts have no log-probs to train on.
            f"{_ROLLOUT}.temperature",
            *(f"{_ROLLOUT}.prompt_length", f"{_ROLLOUT}.response_length"),
            *(f"{_ROLLOUT}.max_model_len", f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu"),
            *("reward.num_workers", "transfer_queue.backend.SimpleStorage.num_data_storage_units"),
            "algorithm.filter_groups.max_inflight_gen_batches",
            *("trainer.v1.rsp_sync.poll_interval_s", "ray_kwargs.ray_init.num_cpus"),
        ),
        _ABOVE_0,
    ),
    **dict.fromkeys(
        (
            *(f"{_ACTOR}.optim.lr", f"{_ACTOR}.optim.weight_decay"),
            *(f"{_ACTOR}.clip_ratio_low", f"{_ACTOR}.clip_ratio_high"),
            *(f"{_ROLLOUT}.val_kwargs.temperature", "data.seed", "data.dataloader_num_workers"),
            *("data.gen_batch_size", "data.val_batch_size", "actor_rollout_ref.model.lora_rank"),
        ),
        _FROM_0,
    ),
    **dict.fromkeys(
        (
            *(f"{_ROLLOUT}.top_p", f"{_ROLLOUT}.val_kwargs.top_p"),
            f"{_ROLLOUT}.gpu_memory_utilization",
        ),
        _SHARE,
    ),
    f"{_ACTOR}.fsdp_config.fsdp_size": _GROUP,
    **dict.fromkeys((f"{_ROLLOUT}.top_k", f"{_ROLLOUT}.val_kwargs.top_k"), _TOP_K),
}


def check_ranges(config: DictConfig) -> None:
    """Check numbers, those too that are null by default and so have no type there.

    Raises:
        ConfigError: Naming the setting, its value and its range.
    """
    for name, (allows, words) in RANGES.items():
        value = OmegaConf.select(config, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and allows(value)):
            raise ConfigError(f"{name}={value} must be {words}")
