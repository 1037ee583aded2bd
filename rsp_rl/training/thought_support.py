"""What a run with a law cannot be, before Ray starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, open_dict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.thoughts.law import FilteredLaw
from rsp_rl.training.asynchronous import ASYNCHRONOUS
from rsp_rl.training.thought_options import ThoughtOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: verl's agent loops that send back what they got as a prompt: thoughts would come back as tokens.
MULTI_TURN = frozenset({"tool_agent"})

#: verl's policy loss without a ratio.
NO_RATIO = "gpg"


def check_law_support(config: DictConfig, options: ThoughtOptions) -> None:
    """Refuse what thoughts cannot work with.

    Raises:
        ConfigError: Naming the setting.
    """
    if not options.enabled:
        return
    for message, applies in {**_engines(config, options), **_objective(config, options)}.items():
        if applies:
            raise ConfigError(message)


def _engines(config: DictConfig, options: ThoughtOptions) -> Mapping[str, bool]:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    model, law = config.actor_rollout_ref.model, options.law
    asynchronous = config.trainer.v1.trainer_mode == ASYNCHRONOUS
    vllm = rollout.engine_kwargs.vllm
    does = "mixes" if law.mixes_all else "searches"
    split = actor.get("ulysses_sequence_parallel_size", 1)
    most = options.settings.max_thoughts if options.settings else None
    compat = set(options.settings.compat if options.settings else ()) - {"cold_abort"}
    loop = rollout.agent.default_agent_loop
    tools = {
        name: rollout.multi_turn.get(name) for name in ("tool_config_path", "function_tool_path")
    }
    parallel = rollout.get("data_parallel_size", 1)
    return {
        f"actor_rollout_ref.rollout.name={rollout.name}: a law needs vllm": rollout.name != "vllm",
        f"actor_rollout_ref.actor.strategy={actor.strategy}: a law needs fsdp2": (
            actor.strategy != "fsdp2"
        ),
        f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={split}: the thoughts of a "
        "sequence that is cut over ranks are not replayed; set it to 1": split > 1,
        "actor_rollout_ref.model.use_fused_kernels=True never has the logits that a law's log-prob "
        "is made of; set it to False": bool(model.get("use_fused_kernels")),
        f"actor_rollout_ref.model.lora_rank={model.lora_rank}: vLLM's LoRA layers know tokens "
        "alone; train without LoRA, or with model.lora.merge=True": bool(
            model.lora_rank and not (model.get("lora") or {}).get("merge")
        ),
        f"actor_rollout_ref.rollout.pipeline_model_parallel_size="
        f"{rollout.pipeline_model_parallel_size}: a law needs logits and embedding in one process; "
        "set it to 1": rollout.pipeline_model_parallel_size > 1,
        f"actor_rollout_ref.rollout.tensor_model_parallel_size="
        f"{rollout.tensor_model_parallel_size}: law={law.name} {does} the whole vocabulary, of "
        "which a rank then has a part; set it to 1": (
            law.needs_all and rollout.tensor_model_parallel_size > 1
        ),
        "actor_rollout_ref.rollout.engine_kwargs.vllm.async_scheduling=True begins a step before a "
        "law has decided about the last; leave it out": bool(vllm.get("async_scheduling")),
        "actor_rollout_ref.rollout.engine_kwargs.vllm.enable_prompt_embeds=False: a law needs it; "
        "leave it null": vllm.get("enable_prompt_embeds") is False,
        "actor_rollout_ref.rollout.repetition_penalty acts in vLLM's sampler, which thoughts do "
        "not pass; set it to 1.0": rollout.get("repetition_penalty", 1.0) != 1.0,
        f"actor_rollout_ref.rollout.agent.default_agent_loop={loop} sends thoughts back as tokens "
        "with its next turn; a law needs single_turn_agent": loop in MULTI_TURN,
        **{
            f"actor_rollout_ref.rollout.multi_turn.{name}={path}: a tool's answer sends thoughts "
            "back as tokens; leave tools out of a run with a law": bool(path)
            for name, path in tools.items()
        },
        f"actor_rollout_ref.rollout.data_parallel_size={parallel}: records lie in one of several "
        "engines, and vLLM asks the first alone for them; set it to 1, and verl starts a server a "
        "GPU": parallel > 1,
        "actor_rollout_ref.rollout.engine_kwargs.vllm.speculative_config: drafts are of tokens; "
        "leave it out of a run with a law": bool(vllm.get("speculative_config")),
        "actor_rollout_ref.model.mtp.enable=True predicts tokens from tokens, and thoughts are "
        "none; set it to False": bool((model.get("mtp") or {}).get("enable")),
        f"law.max_thoughts={most} leaves no room for an answer in data.max_response_length="
        f"{config.data.max_response_length} tokens; lower the former, or raise the latter": (
            most is not None and most >= config.data.max_response_length
        ),
        f"law.compat={sorted(compat)} is about how answers are sampled, which actor_rollout_ref."
        "rollout says in training; leave it out": bool(compat),
        "trainer.v1.trainer_mode=rsp_async and law.cold_entropy: of a rollout that goes on no "
        "record says how many steps in a row were cold; leave one of them out": bool(
            asynchronous and options.settings and options.settings.cold_entropy
        ),
        f"law.temperature={getattr(law, 'temperature', None)} and actor_rollout_ref.rollout."
        f"temperature={rollout.temperature}: the token with which a law ends the thoughts is "
        "trained on as any token; set them to the same": isinstance(law, FilteredLaw)
        and law.temperature != rollout.temperature,
    }


def _objective(config: DictConfig, options: ThoughtOptions) -> Mapping[str, bool]:
    actor, law = config.actor_rollout_ref.actor, options.law
    asynchronous = config.trainer.v1.trainer_mode == ASYNCHRONOUS
    correction = config.algorithm.get("rollout_correction") or {}
    weighs = correction.get("rollout_is") or correction.get("rollout_rs")
    loss = (actor.get("policy_loss") or {}).get("loss_mode", "vanilla")
    kl = actor.use_kl_loss or config.algorithm.use_kl_in_reward
    entropy = actor.get("entropy_coeff", 0)
    estimator = str(config.algorithm.adv_estimator)
    share = f"{actor.ppo_mini_batch_size} of {config.data.train_batch_size}"
    return {
        f"algorithm.rollout_correction weighs tokens by ratios of log-probs ({weighs}), and a "
        "thought's are of several tokens or of noise; leave it out of a run with a law": bool(
            weighs
        ),
        f"actor_rollout_ref.actor.entropy_coeff={entropy}: the entropy of a thought is not its "
        "tokens'; set it to 0": bool(entropy),
        f"algorithm.adv_estimator={estimator}, critic.enable={config.critic.enable}: a critic "
        "reads tokens where the actor has thoughts; leave it out, with an estimator of groups": (
            bool(config.critic.enable) or estimator == "gae"
        ),
        f"algorithm.adv_estimator={estimator} weighs positions by how likely their tokens were, "
        "and a thought is no token; use grpo or rloo": "optimal_token_baseline" in estimator,
        "distillation.enabled=True: a teacher reads tokens where the actor has thoughts; set it to "
        "False": bool((config.get("distillation") or {}).get("enabled")),
        f"law={law.name} and a KL penalty: the density of noise is no probability to hold a "
        "reference's against; set actor_rollout_ref.actor.use_kl_loss=False and algorithm."
        "use_kl_in_reward=False": bool(law.scores_noise and kl),
        f"law={law.name} and actor_rollout_ref.actor.policy_loss.loss_mode={loss}: the density of "
        f"noise magnifies rounding, and a ratio of two is none; set loss_mode={NO_RATIO} "
        "(objective=rloo does)": law.scores_noise and loss != NO_RATIO,
        f"law={law.name} is trained without a ratio, and so on what was just sampled: set "
        f"actor_rollout_ref.actor.ppo_epochs=1 (it is {actor.ppo_epochs}), and ppo_mini_batch_size "
        f"to data.train_batch_size (they are {share})": law.scores_noise
        and (actor.ppo_epochs != 1 or actor.ppo_mini_batch_size != config.data.train_batch_size),
        f"law={law.name} is trained without a ratio, and trainer.v1.trainer_mode=rsp_async trains "
        "on what older policies sampled; set it to rsp_sync": law.scores_noise and asynchronous,
        "law.clip_per_draw=true with a KL penalty, which is of whole positions; leave one of them "
        "out": bool(options.clip_per_draw and kl),
        f"law.clip_per_draw={options.clip_per_draw} and actor_rollout_ref.actor.policy_loss."
        f"loss_mode={loss}: ratios by draw are for rsp_draws, by position for others; set "
        "both or neither": options.clip_per_draw != (loss == "rsp_draws"),
    }


def fill_in_law(
    config: DictConfig,
    options: ThoughtOptions,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: int | None,
) -> None:
    """Put into the config what model and law decide, in place.

    Args:
        config: The run's.
        options: Its group `law`.
        folder: The model's.
        tokenizer: The model's.
        vocabulary: V, if known.

    Raises:
        ConfigError: If the law does not fit the model.
    """
    if options.settings is None:
        return
    options.settings.resolve(tokenizer, vocabulary or len(tokenizer))
    with open_dict(config):
        vllm = config.actor_rollout_ref.rollout.engine_kwargs.vllm
        vllm.enable_prompt_embeds = True
        vllm.async_scheduling = False
        if getattr(options.law, "rms", 0.0) is None:
            stats = embedding_stats(folder)
            config.law.rms = math.hypot(stats.mean, stats.std)
