"""Settings that defeat a run: verl trips over them minutes later, or obeys to the run's loss."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions

logger = logging.getLogger(__name__)

RESUME_MODES = ("auto", "disable", "resume_path")

#: What a checkpoint must hold so that a run goes on from it as it was.
RESUMED = ("model", "optimizer", "extra")

#: Advantage estimators that hold a rollout against the others of its group.
GROUP_BASELINES = frozenset(
    {
        *("grpo", "grpo_vectorized", "grpo_passk", "rloo", "rloo_vectorized", "opo", "gpg", "gdpo"),
        *("reinforce_plus_plus_baseline", "optimal_token_baseline", "tir_optimal_token_baseline"),
    }
)

#: Those that are not defined on a group of one: verl asserts it, or divides by 0.
NEEDS_TWO = frozenset({"grpo_passk"})

#: What `rsp_rl.grading.reward` counts of an answer, as a group may be filtered by.
REWARD_METRICS = frozenset(
    {"reward", "score", "acc", "timeouts", "crashes", "unparsable", "no_answer", "boxed"}
)
_OWN_REWARD = "pkg://rsp_rl.grading.reward"


def check_groups(config: DictConfig) -> None:
    """Make sure that groups are of a size and a metric that dynamic sampling can tell apart.

    Raises:
        ConfigError: If a group of one is to be filtered, or compared where that needs two; or by a
            metric that the reward does not have.
    """
    size, estimator = config.actor_rollout_ref.rollout.n, str(config.algorithm.adv_estimator)
    filter_groups = config.algorithm.filter_groups
    if filter_groups.enable:
        if size < 2:
            raise ConfigError(
                f"actor_rollout_ref.rollout.n={size} with algorithm.filter_groups.enable=True: a "
                "group of one is never all right and all wrong, nothing would be filtered; set "
                "rollout.n to 2 or more, or filter_groups.enable=False"
            )
        own = config.reward.custom_reward_function.path == _OWN_REWARD
        if not filter_groups.metric or (own and filter_groups.metric not in REWARD_METRICS):
            raise ConfigError(
                f"algorithm.filter_groups.metric={filter_groups.metric} is nothing that the reward "
                f"counts; set it to acc, or another of {sorted(REWARD_METRICS)}"
            )
        most = filter_groups.max_num_gen_batches
        if not isinstance(most, int) or most < 0:
            raise ConfigError(
                f"algorithm.filter_groups.max_num_gen_batches={most} must be a whole number of "
                "batches, or 0 for no limit"
            )
    if size < 2 and estimator in NEEDS_TWO:
        raise ConfigError(
            f"algorithm.adv_estimator={estimator} compares two rollouts of a group, and "
            f"actor_rollout_ref.rollout.n={size}; set it to 2 or more"
        )
    if size < 2 and estimator in GROUP_BASELINES:
        logger.warning(
            "actor_rollout_ref.rollout.n=%s: algorithm.adv_estimator=%s holds a rollout against "
            "the others of its group, and there are none: a reward of 0 teaches nothing, and one "
            "of 1 as much however easy the problem; set rollout.n to 2 or more",
            size,
            estimator,
        )


def check_updates(config: DictConfig) -> None:
    """Make sure that steps train the actor, and say where they hardly do.

    Raises:
        ConfigError: If the actor waits for a critic that the run does not have.
    """
    trainer, optim = config.trainer, config.actor_rollout_ref.actor.optim
    has_critic = config.critic.enable or config.algorithm.adv_estimator == "gae"
    if trainer.critic_warmup > 0 and not has_critic:
        raise ConfigError(
            f"trainer.critic_warmup={trainer.critic_warmup} without a critic: the steps before it "
            "would train nothing; set it to 0"
        )
    if optim.lr == 0:
        logger.warning("actor_rollout_ref.actor.optim.lr=0: the run trains nothing")
    steps = trainer.total_training_steps
    if steps and optim.lr_warmup_steps > steps:
        logger.warning(
            "actor_rollout_ref.actor.optim.lr_warmup_steps=%s: the learning rate never gets to "
            "lr=%s in trainer.total_training_steps=%s",
            *(optim.lr_warmup_steps, optim.lr, steps),
        )


def check_saving(config: DictConfig) -> None:
    """Refuse what would take checkpoints from under a run.

    Raises:
        ConfigError: Naming the setting.
    """
    trainer = config.trainer
    if trainer.resume_mode not in RESUME_MODES:
        raise ConfigError(
            f"trainer.resume_mode={trainer.resume_mode} is unknown; use one of {RESUME_MODES}"
        )
    keep = trainer.get("max_actor_ckpt_to_keep")
    contents = config.actor_rollout_ref.actor.checkpoint
    saved = list(contents.save_contents)
    for name in ("save_contents", "load_contents"):
        if lost := [part for part in RESUMED if part not in contents[name]]:
            logger.warning(
                "actor_rollout_ref.actor.checkpoint.%s=%s lacks %s: a run that is resumed is not "
                "the one that was saved",
                *(name, list(contents[name]), ", ".join(lost)),
            )
    refused = {
        f"actor_rollout_ref.actor.checkpoint.save_contents={saved} holds no weights; add "
        "model": not {"model", "hf_model"} & {*saved},
        f"trainer.default_local_dir={trainer.default_local_dir} names no folder; checkpoints go "
        "there": not trainer.default_local_dir,
        f"trainer.resume_from_path={trainer.resume_from_path} with trainer.resume_mode="
        f"{trainer.resume_mode}, which does not look at it; set trainer.resume_mode=resume_path, "
        "or leave the path out": trainer.resume_from_path and trainer.resume_mode != "resume_path",
        f"trainer.max_actor_ckpt_to_keep={keep} is no whole number; null keeps all": (
            keep is not None and (isinstance(keep, bool) or not isinstance(keep, int))
        ),
        "trainer.del_local_ckpt_after_load=True deletes the checkpoint that the run resumes from, "
        "and a crash before the next one loses all; set it to False": (
            trainer.get("del_local_ckpt_after_load", False)
        ),
        "trainer.remove_previous_ckpt_in_save=True is verl's old name; set it to False and "
        "trainer.max_actor_ckpt_to_keep=1": trainer.get("remove_previous_ckpt_in_save", False),
        "actor_rollout_ref.actor.checkpoint.async_save=True: a checkpoint counts here once it is "
        "whole, which nobody can tell while it is being written; set it to False": (
            config.actor_rollout_ref.actor.get("checkpoint", {}).get("async_save", False)
        ),
    }
    for message, applies in refused.items():
        if applies:
            raise ConfigError(message)


def check_overlong(config: DictConfig) -> None:
    """Make sure that the soft overlong punishment begins within a response.

    Raises:
        ConfigError: If its span exceeds the longest response, or is none.
    """
    reward = config.reward
    punishment = reward.get("reward_kwargs", {}).get("overlong_buffer_cfg")
    if reward.reward_manager.name != "dapo" or not punishment or not punishment.enable:
        return
    longest = reward.reward_kwargs.max_resp_len
    generated = config.actor_rollout_ref.rollout.response_length
    if not longest or not longest == config.data.max_response_length == generated:
        raise ConfigError(
            f"reward.reward_kwargs.max_resp_len={longest} is not data.max_response_length="
            f"{config.data.max_response_length} and rollout.response_length={generated}: the "
            "overlong punishment would begin elsewhere; leave it as it is"
        )
    if not 0 < punishment.len <= longest:
        raise ConfigError(
            f"reward.reward_kwargs.overlong_buffer_cfg.len={punishment.len} must be above 0 and "
            f"not above data.max_response_length={longest}: it is the end of a response that is "
            "punished; DAPO took a fifth of it"
        )


def check_validation(config: DictConfig, options: RspOptions) -> None:
    """Refuse validations that are not what they are called.

    Raises:
        ConfigError: If a problem's several samples are one and the same, or if answers that are to
            be greedy would be sampled: verl's trainer looks at the temperature alone; if a run that
            is to validate alone would train.
    """
    trainer = config.trainer
    if trainer.val_only and not trainer.val_before_train:
        raise ConfigError(
            "trainer.val_only=True with val_before_train=False: verl would train; set the latter "
            "to True"
        )
    kwargs = config.actor_rollout_ref.rollout.val_kwargs
    if not kwargs.do_sample and kwargs.temperature > 0 and kwargs.top_k != 1:
        raise ConfigError(
            "actor_rollout_ref.rollout.val_kwargs.do_sample=False with temperature="
            f"{kwargs.temperature}: verl samples all the same; set temperature=0 for greedy "
            "answers, or do_sample=True"
        )
    greedy = kwargs.temperature == 0 or kwargs.top_k == 1
    drawn = options.enabled and options.validation and options.mode == "independent"
    if kwargs.n > 1 and greedy and not drawn:
        raise ConfigError(
            f"actor_rollout_ref.rollout.val_kwargs.n={kwargs.n} greedy answers to a problem are "
            f"one and the same, and best@{kwargs.n} and maj@{kwargs.n} would say nothing; set n=1, "
            "or temperature above 0 and do_sample=True"
        )
