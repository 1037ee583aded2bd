"""Checks of a training run before Ray starts: one clear error for what would fail minutes later."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from yaml import YAMLError

from rsp_rl.options import ConfigError, RspOptions, rollout_dtype
from rsp_rl.placement import check_chat_template
from rsp_rl.truncation import Truncation

#: verl's agent loops, all of which place soft prompts.
AGENT_LOOPS = ("single_turn_agent", "tool_agent")

#: Module of the optimiser of `configs/memory/low.yaml`; importing it imports DeepSpeed.
CPU_ADAM_MODULE = "rsp_rl.verl_plugin.cpu_adam"

_WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")
_VOCABULARY_PATTERNS = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")


def resolve_model_folder(path: str) -> Path:
    """The local folder of a model given as a folder or as a name on the Hugging Face hub.

    Raises:
        ConfigError: If there is no such folder, and no such model on the hub (or no way to it).
    """
    if not path:
        raise ConfigError(
            "actor_rollout_ref.model.path is not set; give a Hugging Face model folder, or a name "
            "on the hub such as Qwen/Qwen2.5-Math-7B"
        )
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1:
        raise ConfigError(
            f"actor_rollout_ref.model.path={path!r}: no such folder; give a Hugging Face model "
            "folder, or a name on the hub such as Qwen/Qwen2.5-Math-7B"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
    except Exception as error:  # the hub raises a dozen kinds; all mean the same to the user
        raise ConfigError(
            f"actor_rollout_ref.model.path={path!r}: no such folder, and the hub did not give it "
            f"({type(error).__name__}: {error}); check the name, the network and HF_TOKEN"
        ) from error


def check_model(folder: Path) -> PretrainedConfig:
    """The model's config, its weights being there.

    Raises:
        ConfigError: If the folder holds no config that loads, or no safetensors weights.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model folder {folder} holds no config.json; is it a Hugging Face model folder? "
            "A verl checkpoint has one in its actor/huggingface folder, once merged"
        )
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHT_PATTERNS):
        raise ConfigError(f"model folder {folder} holds no *.safetensors weights; download them")
    try:
        return AutoConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / 'config.json'} is no model config: {error}") from error


def load_tokenizer(folder: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        ConfigError: If the folder holds none that loads.
    """
    if not any(next(folder.glob(pattern), None) for pattern in _VOCABULARY_PATTERNS):
        # transformers would make an empty tokenizer of the model's type.
        raise ConfigError(
            f"model folder {folder} holds no tokenizer (tokenizer.json, vocab.json or "
            "tokenizer.model); download it, or save the base model's there"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ConfigError(f"model folder {folder} holds no usable tokenizer: {error}") from error
    if chat_template:
        tokenizer.chat_template = chat_template
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, options: RspOptions) -> None:
    """Make sure that prompts can be made and that soft prompts have a place in them.

    Raises:
        ConfigError: If there is no chat template.
        PlacementError: If the template has no end-of-turn token.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            "the tokenizer has no chat template, which training prompts need; use a model that has "
            "one, or set actor_rollout_ref.model.custom_chat_template"
        )
    if options.enabled:
        check_chat_template(tokenizer, options.position)


def check_dataset(
    files: str | Sequence[str],
    prompt_key: str = "prompt",
    *,
    agent_loops: Collection[str] | None = None,
) -> int:
    """Check every row of a dataset in verl's schema.

    Args:
        files: Parquet files.
        prompt_key: Column of the chat messages.
        agent_loops: Those that a row may ask for; any if None.

    Returns:
        The number of rows.

    Raises:
        ConfigError: Naming file, row and field of the first row that training could not use.
    """
    rows = 0
    # A config without files says None, which is then named as missing.
    for name in [files] if files is None or isinstance(files, str) else files:
        file = Path(str(name)).expanduser()
        if not file.is_file():
            raise ConfigError(f"dataset {file} does not exist; check data.train_files, val_files")
        if file.suffix != ".parquet":
            continue  # verl reads json as well; its rows are checked when they are used
        columns = [prompt_key, "reward_model", "data_source"]
        try:
            present = pq.read_schema(file).names
            missing = [column for column in columns if column not in present]
            table = pq.ParquetFile(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"dataset {file} is not a readable parquet file: {error}") from error
        if missing:
            raise ConfigError(
                f"dataset {file}, row 0: no {missing[0]!r}; every row needs the columns {columns} "
                f"(verl's schema), the file has {present}"
            )
        if not table.metadata.num_rows:
            raise ConfigError(f"dataset {file} has no rows")
        if agent_loops is not None and "agent_name" in present:
            columns.append("agent_name")
        for number, row in enumerate(_rows(table, columns)):
            if problem := _row_problem(row, prompt_key, agent_loops):
                raise ConfigError(f"dataset {file}, row {number}: {problem}")
        rows += table.metadata.num_rows
    return rows


def _rows(table: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows one batch at a time: training sets of millions of rows exist."""
    for batch in table.iter_batches(batch_size=4096, columns=columns):
        yield from batch.to_pylist()


def _row_problem(
    row: Mapping[str, Any], prompt_key: str, agent_loops: Collection[str] | None
) -> str | None:
    messages = row[prompt_key]
    if not messages:
        return f"no {prompt_key!r}: it must be a list of chat messages"
    if not isinstance(messages, list):
        return f"{prompt_key!r} is {messages!r:.80}, not a list of chat messages"
    for message in messages:
        # Parquet fills the fields that a message lacks with null.
        fields = message if isinstance(message, Mapping) else {}
        if not fields.get("role") or fields.get("content") is None:
            return f"{prompt_key!r} holds {message!r:.80}, not a message with 'role' and 'content'"
        if message["role"] == "user" and not isinstance(message["content"], str):
            return f"{prompt_key!r} has a user message that is not text: {message['content']!r:.80}"
    if not any(message["role"] == "user" for message in messages):
        return f"{prompt_key!r} has no user message"
    reward_model = row["reward_model"]
    if not isinstance(reward_model, Mapping) or reward_model.get("ground_truth") is None:
        return "reward_model.ground_truth is missing; the reward needs a gold answer"
    if not row["data_source"]:
        return "'data_source' is empty; it names the benchmark whose grading rules apply"
    if "agent_name" in row and row["agent_name"] not in agent_loops:
        return (
            f"'agent_name' is {row['agent_name']!r}; soft prompts know {sorted(agent_loops)}: drop "
            "the column, name the loop in actor_rollout_ref.rollout.agent.agent_loop_config_path, "
            "or set rsp.length=0"
        )
    return None


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
    for name, number in (
        ("data.train_batch_size", config.data.train_batch_size),
        ("actor_rollout_ref.actor.ppo_mini_batch_size", actor.ppo_mini_batch_size),
        ("actor_rollout_ref.rollout.n", rollout.n),
    ):
        if not (isinstance(number, int) and number > 0):
            raise ConfigError(f"{name}={number} must be a whole number above 0")
    ranks = config.trainer.nnodes * config.trainer.n_gpus_per_node
    sequence_parallel = actor.get("ulysses_sequence_parallel_size", 1)
    if ranks < 1 or ranks % sequence_parallel:
        raise ConfigError(
            f"trainer.nnodes={config.trainer.nnodes} x trainer.n_gpus_per_node="
            f"{config.trainer.n_gpus_per_node} ranks cannot be cut into groups of "
            f"actor_rollout_ref.actor.ulysses_sequence_parallel_size={sequence_parallel}"
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
    rollout = config.actor_rollout_ref.rollout
    is_raw, is_truncated = rollout.logprobs_mode == "raw_logprobs", Truncation.of(rollout).enabled
    if is_raw and is_truncated and (correction.get("rollout_is") or correction.get("rollout_rs")):
        raise ConfigError(
            "algorithm.rollout_correction weighs by the distribution that was sampled from, but "
            "actor_rollout_ref.rollout.logprobs_mode=raw_logprobs gives log-probs without top_k="
            f"{rollout.top_k}, top_p={rollout.top_p}; set logprobs_mode=processed_logprobs"
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
