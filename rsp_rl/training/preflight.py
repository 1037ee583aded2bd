"""Checks of a training run before Ray starts: one clear error for what would fail minutes later."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from rsp_rl.basics.errors import ConfigError
from rsp_rl.dials.options import RspOptions, rollout_dtype
from rsp_rl.injection.model_runner import WORKER
from rsp_rl.models.shape import ModelShape
from rsp_rl.placement.chat import check_chat_template
from rsp_rl.training.asynchronous import ASYNCHRONOUS, TRAINER_MODES
from rsp_rl.training.truncation import Truncation

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

#: verl's agent loops, all of which place soft prompts.
AGENT_LOOPS = ("single_turn_agent", "tool_agent")

#: What vLLM calls the types of its weights.
VLLM_DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float")

#: What `rsp-rl train` can show.
CONSOLES = ("progress", "full")

#: Side of the blocks that verl's fp8 rollout rounds weights in
#: (`vLLMHttpServer._apply_quantization`).
FP8_BLOCK = 128

#: Module of the optimiser of `configs/memory/low.yaml`; importing it imports DeepSpeed.
CPU_ADAM_MODULE = "rsp_rl.training.verl_plugin.cpu_adam"


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    options: RspOptions,
    template_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Make sure that prompts can be made and that soft prompts have a place in them.

    Args:
        tokenizer: The model's.
        options: Whether and where soft prompts go.
        template_kwargs: `data.apply_chat_template_kwargs`.

    Raises:
        ConfigError: If there is no chat template.
        PlacementError: If the template leaves the user's message out, or does not end its turn.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            "the tokenizer has no chat template, which training prompts need; use a model that has "
            "one, or set actor_rollout_ref.model.custom_chat_template"
        )
    # What is inserted needs an end of the turn; noise needs the message, which each row tries.
    position = options.position if options.enabled and not options.adds else None
    check_chat_template(tokenizer, position, **(template_kwargs or {}))


def check_lengths(config: DictConfig, model: PretrainedConfig, extra: int) -> None:
    """Make sure that a prompt with its soft prompt, and a response, fit everywhere.

    Args:
        config: The run's config, `rollout.prompt_length` set.
        model: The model's config.
        extra: Tokens that a soft prompt adds to a prompt.

    Raises:
        ConfigError: Naming the budget that is too small.
    """
    rollout, data = config.actor_rollout_ref.rollout, config.data
    if rollout.prompt_length < data.max_prompt_length + extra:
        raise ConfigError(
            f"actor_rollout_ref.rollout.prompt_length={rollout.prompt_length} is below "
            f"data.max_prompt_length={data.max_prompt_length} and the {extra} tokens of a soft "
            "prompt: some prompts would not fit; raise the former, lower the latter, or leave "
            "rollout.prompt_length=null"
        )
    total = rollout.prompt_length + rollout.response_length
    limits = {
        "actor_rollout_ref.rollout.max_model_len": rollout.max_model_len,
        "the model's max_position_embeddings": getattr(model, "max_position_embeddings", None),
    }
    for name, limit in limits.items():
        if limit is not None and total > limit:
            raise ConfigError(
                f"prompt ({rollout.prompt_length} tokens, {extra} of them RSP) and response "
                f"({rollout.response_length}) exceed {name}={limit}; lower data.max_prompt_length "
                "or data.max_response_length"
            )


def check_batches(config: DictConfig) -> None:
    """Check the batch arithmetic that verl asserts only after start-up.

    Raises:
        ConfigError: Naming the two numbers that do not divide.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    sequence_parallel = actor.get("ulysses_sequence_parallel_size", 1)
    sharded = actor.fsdp_config.fsdp_size
    for name, group in (
        ("actor.ulysses_sequence_parallel_size", sequence_parallel),
        ("actor.fsdp_config.fsdp_size", sharded if 0 < sharded < ranks else 1),
        (
            "rollout.tensor_model_parallel_size (x data and pipeline parallel sizes)",
            rollout.tensor_model_parallel_size
            * rollout.data_parallel_size
            * rollout.pipeline_model_parallel_size,
        ),
    ):
        if ranks % group:
            raise ConfigError(
                f"trainer.nnodes={config.trainer.nnodes} x trainer.n_gpus_per_node="
                f"{config.trainer.n_gpus_per_node} ranks cannot be cut into groups of "
                f"actor_rollout_ref.{name}={group}"
            )
    ranks //= sequence_parallel
    if config.data.train_batch_size % actor.ppo_mini_batch_size:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size} is not a multiple of "
            f"actor_rollout_ref.actor.ppo_mini_batch_size={actor.ppo_mini_batch_size}"
        )
    mini_batch = actor.ppo_mini_batch_size * rollout.n
    if mini_batch % ranks:
        raise ConfigError(
            f"a mini-batch of {actor.ppo_mini_batch_size} prompts x rollout.n={rollout.n} rollouts "
            f"does not divide over {ranks} data-parallel ranks"
        )
    micro_batch = actor.get("ppo_micro_batch_size_per_gpu")
    if not actor.use_dynamic_bsz and micro_batch and (mini_batch // ranks) % micro_batch:
        raise ConfigError(
            f"a rank's mini-batch of {mini_batch // ranks} rollouts is not a multiple of "
            f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={micro_batch}"
        )
    share = config.data.train_batch_size * rollout.n // ranks
    micro_batch = rollout.log_prob_micro_batch_size_per_gpu
    if not rollout.log_prob_use_dynamic_bsz and micro_batch and share % micro_batch:
        raise ConfigError(
            f"a rank's {share} rollouts of a step are not a multiple of "
            f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={micro_batch}"
        )
    fetched = config.data.get("gen_batch_size")
    refills = (
        config.algorithm.filter_groups.enable
        or config.trainer.v1.sampler.get("sync_refill_failed_groups", False)
        or config.trainer.v1.get("trainer_mode") == ASYNCHRONOUS
    )
    if fetched and not refills and config.data.train_batch_size % fetched:
        raise ConfigError(
            f"data.train_batch_size={config.data.train_batch_size} is not a multiple of "
            f"data.gen_batch_size={fetched}, in which its prompts are fetched"
        )


def check_token_budgets(config: DictConfig) -> None:
    """Make sure that a micro-batch of so many tokens holds the longest sequence.

    Args:
        config: The composed config, `rollout.prompt_length` set.

    Raises:
        ConfigError: Naming the budget that does not; verl asserts it when such a sequence comes.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    longest = rollout.prompt_length + rollout.response_length
    split = actor.get("ulysses_sequence_parallel_size", 1)
    for name, budget, applies in (
        ("actor.ppo_max_token_len_per_gpu", actor.ppo_max_token_len_per_gpu, actor.use_dynamic_bsz),
        (
            "rollout.log_prob_max_token_len_per_gpu",
            rollout.log_prob_max_token_len_per_gpu,
            rollout.log_prob_use_dynamic_bsz,
        ),
    ):
        if applies and budget * split < longest:
            raise ConfigError(
                f"actor_rollout_ref.{name}={budget} x ulysses_sequence_parallel_size={split} does "
                f"not hold the longest sequence of {longest} tokens; raise one of them"
            )


def check_mixing(options: RspOptions, group_size: int) -> None:
    """Make sure that a group has two halves, where one of them is to have soft prompts.

    Raises:
        ConfigError: If it has an odd number of rollouts.
    """
    if options.enabled and options.mixing == "half" and group_size % 2:
        raise ConfigError(
            f"rsp.mixing=half but groups of actor_rollout_ref.rollout.n={group_size} rollouts have "
            "no half; set an even number"
        )


def check_guard_support(config: DictConfig) -> None:
    """Refuse what leaves the guard without log-probs to compare.

    Raises:
        ConfigError: Naming the setting.
    """
    correction = config.algorithm.get("rollout_correction") or {}
    if not config.actor_rollout_ref.rollout.calculate_log_probs:
        raise ConfigError(
            "actor_rollout_ref.rollout.calculate_log_probs=False: the guard compares them; set it "
            "to True"
        )
    if correction.get("bypass_mode"):
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode=True: the guard compares the rollout's "
            "log-probs with the actor's, which that mode does not compute; set it to False"
        )
    loss = config.actor_rollout_ref.actor.get("policy_loss") or {}
    if loss.get("loss_mode") == "bypass_mode":
        raise ConfigError(
            "actor_rollout_ref.actor.policy_loss.loss_mode=bypass_mode: that loss takes the "
            "actor's old log-probs for the rollout's; leave it at vanilla, and choose a correction "
            "with +correction=..."
        )
    rollout = config.actor_rollout_ref.rollout
    is_raw, is_truncated = rollout.logprobs_mode == "raw_logprobs", Truncation.of(rollout).enabled
    if is_raw and is_truncated and (correction.get("rollout_is") or correction.get("rollout_rs")):
        raise ConfigError(
            "algorithm.rollout_correction weighs by the distribution that was sampled from, but "
            "actor_rollout_ref.rollout.logprobs_mode=raw_logprobs gives log-probs without top_k="
            f"{rollout.top_k}, top_p={rollout.top_p}; set logprobs_mode=processed_logprobs"
        )
    rejected_by = str(correction.get("rollout_rs") or "")
    if is_truncated and "seq_" in rejected_by:
        raise ConfigError(
            f"algorithm.rollout_correction.rollout_rs={rejected_by} leaves out rollouts whose "
            f"log-probs differ from the actor's, and top_k={rollout.top_k}, top_p={rollout.top_p} "
            "alone makes them differ, in sum the more the longer: they would go for that; set "
            "actor_rollout_ref.rollout.top_k=-1 and top_p=1.0, or a correction by weights "
            "(+correction=tis)"
        )
    if config.actor_rollout_ref.model.get("use_fused_kernels") and is_truncated and not is_raw:
        raise ConfigError(
            "actor_rollout_ref.model.use_fused_kernels=True: without logits the actor cannot tell "
            f"what top_k={rollout.top_k}, top_p={rollout.top_p} make of log-probs; set rollout."
            "logprobs_mode=raw_logprobs, which are those before it"
        )
    if is_raw and rollout.temperature != 1.0:
        raise ConfigError(
            "actor_rollout_ref.rollout.logprobs_mode=raw_logprobs: the rollout's log-probs are "
            f"those at temperature 1, the actor's at temperature={rollout.temperature}; set "
            "logprobs_mode=processed_logprobs, or temperature=1.0"
        )


def check_quantization(config: DictConfig, model: PretrainedConfig | ModelShape) -> None:
    """Refuse quantized rollouts that could not be right, or that vLLM refuses minutes later.

    Args:
        config: The composed config.
        model: The model's config, or its shape.

    Raises:
        ConfigError: Naming the setting, or the width that is no whole number of blocks.
    """
    rollout = config.actor_rollout_ref.rollout
    if rollout.quantization is None:
        return
    key = f"actor_rollout_ref.rollout.quantization={rollout.quantization}"
    correction = config.algorithm.get("rollout_correction") or {}
    refused = {
        "is for GPUs; vLLM's CPU target has no kernels for it: leave +rollout=fp8 out": (
            config.trainer.device == "cpu"
        ),
        f"with rollout.load_format={rollout.load_format} vLLM would take the folder's weights for "
        "quantized ones, which verl sends later; set it to dummy (so not with LoRA)": (
            rollout.load_format != "dummy"
        ),
        "samples from another policy than the one that is trained, and nothing corrects for it; "
        "choose it with +rollout=fp8, which does, or add +correction=tis": not (
            correction.get("rollout_is") or correction.get("rollout_rs")
        ),
    }
    for message, applies in refused.items():
        if applies:
            raise ConfigError(f"{key} {message}")
    if rollout.quantization == "fp8":
        _check_blocks(key, model, rollout.tensor_model_parallel_size)


def _check_blocks(key: str, model: PretrainedConfig | ModelShape, ranks: int) -> None:
    """As `validate_fp8_block_shape` of vLLM: what a rank holds of a matrix is whole blocks."""
    if isinstance(model, ModelShape):
        heads, kv_heads, head_dim = model.heads, model.kv_heads, model.head_dim
    else:
        heads = model.num_attention_heads
        kv_heads = getattr(model, "num_key_value_heads", None) or heads
        head_dim = getattr(model, "head_dim", None) or model.hidden_size // heads
    widths = {
        "queries": heads * head_dim // ranks,
        "keys": max(kv_heads // ranks, 1) * head_dim,  # fewer heads than ranks are repeated
        "feed-forwards": model.intermediate_size // ranks,
    }
    for what, width in widths.items():
        if width % FP8_BLOCK:
            raise ConfigError(
                f"{key} rounds in blocks of {FP8_BLOCK} x {FP8_BLOCK}, and {what} of this model "
                f"are {width} wide on each of actor_rollout_ref.rollout.tensor_model_parallel_size"
                f"={ranks} ranks; lower it, or leave +rollout=fp8 out"
            )


def agent_loops(config: DictConfig) -> set[str]:
    """Agent loops that rollouts with soft prompts may ask for: verl's, and the user's own.

    Whether the user's place soft prompts is seen where they are loaded (`check_agent_loop`).

    Raises:
        ConfigError: If `rollout.agent.agent_loop_config_path` is no list of loops.
    """
    path = config.actor_rollout_ref.rollout.agent.get("agent_loop_config_path")
    if not path:
        return set(AGENT_LOOPS)
    try:
        return {*AGENT_LOOPS, *(str(loop.name) for loop in OmegaConf.load(path))}
    except (OSError, AttributeError, YAMLError) as error:
        raise ConfigError(
            f"actor_rollout_ref.rollout.agent.agent_loop_config_path={path}: not a YAML list of "
            f"agent loops with 'name' and '_target_' ({error})"
        ) from error


def check_optimizer(config: DictConfig) -> None:
    """Refuse DeepSpeed's CPU Adam where it cannot work.

    Raises:
        ConfigError: Naming the setting or the missing package.
    """
    actor = config.actor_rollout_ref.actor
    if actor.optim.get("optimizer_impl") != CPU_ADAM_MODULE:
        return
    if actor.strategy != "fsdp2" or not actor.fsdp_config.offload_policy:
        raise ConfigError(
            f"actor_rollout_ref.actor.optim.optimizer_impl={CPU_ADAM_MODULE} needs the parameters "
            f"on the CPU, but strategy={actor.strategy} and fsdp_config.offload_policy="
            f"{actor.fsdp_config.offload_policy}; choose it with +memory=low"
        )
    if find_spec("deepspeed") is None:
        raise ConfigError(
            f"actor_rollout_ref.actor.optim.optimizer_impl={CPU_ADAM_MODULE} needs DeepSpeed: "
            "pip install deepspeed, or leave +memory=low out"
        )


def check_trainer(config: DictConfig) -> None:
    """Make sure that it is our trainer that trains, on the engines that it knows.

    Raises:
        ConfigError: Naming the setting that chooses another, or a type that vLLM does not know.
    """
    for name, value in (
        ("trainer.use_v1", True),
        ("actor_rollout_ref.hybrid_engine", True),
    ):
        if (found := OmegaConf.select(config, name)) != value:
            raise ConfigError(f"{name}={found} chooses another trainer; leave it {value}")
    if (mode := config.trainer.v1.trainer_mode) not in TRAINER_MODES:
        raise ConfigError(
            f"trainer.v1.trainer_mode={mode} chooses another trainer; take one of "
            f"{', '.join(TRAINER_MODES)}"
        )
    dtype = config.actor_rollout_ref.rollout.dtype
    if dtype not in VLLM_DTYPES:
        raise ConfigError(
            f"actor_rollout_ref.rollout.dtype={dtype} is no type of vLLM's; use one of "
            f"{', '.join(VLLM_DTYPES)}"
        )


def check_console(config: DictConfig) -> None:
    """Check what the screen is to show.

    Raises:
        ConfigError: If `console` is unknown.
    """
    if config.console not in CONSOLES:
        raise ConfigError(f"console={config.console} is unknown; use one of {CONSOLES}")


def check_phase_timeout(config: DictConfig) -> None:
    """Check the time after which a phase of a step counts as stuck.

    Raises:
        ConfigError: If it is no time.
    """
    seconds = config.trainer.v1.rsp_sync.phase_timeout_s
    if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
        raise ConfigError(
            f"trainer.v1.rsp_sync.phase_timeout_s={seconds} must be a number of seconds above 0, "
            "or null for no limit"
        )


def check_servers(config: DictConfig) -> None:
    """Refuse rollout servers that are not ours.

    verl makes those of prefill and decode of a class of its own, whatever is registered. They know
    neither soft prompts nor laws, nor the name of the socket that weights come by.

    Raises:
        ConfigError: Naming the setting.
    """
    apart = config.actor_rollout_ref.rollout.get("disaggregation") or {}
    if apart.get("enabled"):
        raise ConfigError(
            "actor_rollout_ref.rollout.disaggregation.enabled=True: verl has servers of its own "
            "for prefill and decode, which would never get the weights; set it to False"
        )


def check_rsp_support(config: DictConfig) -> None:
    """Refuse what soft prompts cannot work with.

    Raises:
        ConfigError: Naming the setting.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    rollout_dtype(rollout.dtype)
    agent_loop = rollout.agent.default_agent_loop
    loops = agent_loops(config)
    refused = {
        f"actor_rollout_ref.rollout.name={rollout.name}: soft prompts need vllm": rollout.name
        != "vllm",
        f"actor_rollout_ref.actor.strategy={actor.strategy}: soft prompts need fsdp or fsdp2": (
            actor.strategy not in ("fsdp", "fsdp2")
        ),
        "actor_rollout_ref.rollout.repetition_penalty: vLLM's penalties fail on prompts of "
        "embeddings; set it to 1.0": rollout.get("repetition_penalty", 1.0) != 1.0,
        f"actor_rollout_ref.rollout.agent.default_agent_loop={agent_loop}: soft prompts know "
        f"{sorted(loops)}; name another in rollout.agent.agent_loop_config_path": (
            agent_loop not in loops
        ),
    }
    for message, applies in refused.items():
        if applies:
            raise ConfigError(message)


def check_adds(config: DictConfig, options: RspOptions) -> None:
    """Refuse rollouts whose engine cannot add rows to embeddings, where the law's are added.

    Raises:
        ConfigError: If another worker than ours would serve them, or if records may not be sent.
    """
    if not options.has_added_rows:
        return
    vllm = config.actor_rollout_ref.rollout.engine_kwargs.vllm
    if vllm.get("enable_prompt_embeds") is False:
        raise ConfigError(
            "actor_rollout_ref.rollout.engine_kwargs.vllm.enable_prompt_embeds=False: rsp.law="
            f"{options.law} needs it; leave it null"
        )
    worker = vllm.get("worker_cls")
    if worker not in (None, WORKER):
        raise ConfigError(
            f"actor_rollout_ref.rollout.engine_kwargs.vllm.worker_cls={worker}: rsp.law="
            f"{options.law} needs {WORKER}, which is the default; leave it out"
        )
