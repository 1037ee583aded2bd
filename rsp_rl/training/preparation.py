"""From a composed config to a run that can start: all checks, and what model and machine decide."""

from __future__ import annotations

import logging
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict

from rsp_rl.basics.files import write_json
from rsp_rl.console import events
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.draws.embedding_table import FOLDER_VARIABLE, open_embedding_table, recognised_table
from rsp_rl.draws.laws import LAWS
from rsp_rl.models.folder import check_model, load_tokenizer, resolve_model_folder
from rsp_rl.models.stop_tokens import FOLDER as GENERATION_CONFIG
from rsp_rl.models.stop_tokens import missing_stop_token, write_generation_config
from rsp_rl.models.vocabulary import check_numbering, check_placeholder, vocabulary_size
from rsp_rl.placement.dates import date_argument, depends_on_the_day
from rsp_rl.placement.prompt import extra_tokens
from rsp_rl.runs.checkpoints import (
    check_law,
    check_model_of,
    check_whole,
    checkpoint_to_resume,
    saved_law,
    step_of,
)
from rsp_rl.runs.data_order import check_order, data_order, file_digests
from rsp_rl.runs.folder import RunFolder
from rsp_rl.training.adapters import check_adapter
from rsp_rl.training.asynchronous import ASYNCHRONOUS, check_asynchronous
from rsp_rl.training.cpu_sizes import fit_kv_cache, fit_prompt_length, fit_threads
from rsp_rl.training.cpus import check_cpus, joins_cluster
from rsp_rl.training.disk import tell_room
from rsp_rl.training.fitted_sizes import fit_bucket, fit_context
from rsp_rl.training.job_environment import give_way_to_job, make_texts
from rsp_rl.training.model_runner import check_held_prompts, smallest_gpu_bytes
from rsp_rl.training.model_sources import check_sources
from rsp_rl.training.paths import make_absolute
from rsp_rl.training.preflight import (
    agent_loops,
    check_adds,
    check_batches,
    check_console,
    check_guard_support,
    check_lengths,
    check_mixing,
    check_optimizer,
    check_phase_timeout,
    check_quantization,
    check_rsp_support,
    check_servers,
    check_token_budgets,
    check_tokenizer,
    check_trainer,
)
from rsp_rl.training.prompts import check_prompts, template_arguments
from rsp_rl.training.self_defeating import (
    check_groups,
    check_overlong,
    check_saving,
    check_updates,
    check_validation,
)
from rsp_rl.training.setting_ranges import check_ranges
from rsp_rl.training.setting_types import check_types
from rsp_rl.training.thoughts import check_law as check_law_of_thoughts
from rsp_rl.training.thoughts import fit_law, keep_law, loops_without_law
from rsp_rl.training.tools import Tools, run_tools
from rsp_rl.training.trackers import add_own_record, check_trackers
from rsp_rl.training.train_data import check_data
from rsp_rl.training.vllm_faults import check_lora

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: RSP options that come from the pretrained table.
_FILLED_IN = ("mean", "std", "table", "table_digest")


def prepare(config: DictConfig) -> RunFolder:
    """Check a composed config and fill in what depends on model and machine, in place.

    mu_E and sigma_E are those of the pretrained table for the whole run: a resumed run takes them
    from its checkpoint, whatever `model.path` is by then.

    Raises:
        ConfigError, PlacementError, RunFolderError, FileNotFoundError, ValueError: For all that
            would fail later.
    """
    make_absolute(config)
    check_types(config)
    check_ranges(config)
    make_texts(config.ray_kwargs.ray_init.runtime_env.env_vars)
    add_own_record(config)
    options = RspOptions.from_config(config.rsp)
    check_console(config)
    check_trainer(config)
    check_guard_support(config)
    check_asynchronous(config)
    check_servers(config)
    if options.enabled:
        check_rsp_support(config)
        check_adds(config, options)
    check_law_of_thoughts(config)
    check_batches(config)
    check_adapter(config)
    check_cpus(config)
    check_mixing(options, config.actor_rollout_ref.rollout.n)
    check_optimizer(config)
    check_phase_timeout(config)
    check_groups(config)
    check_overlong(config)
    check_updates(config)
    check_saving(config)
    check_validation(config, options)
    if not joins_cluster(config):  # whose variables are not ours; the trainer's process is asked
        check_trackers(config, {**os.environ, **config.ray_kwargs.ray_init.runtime_env.env_vars})
    model = config.actor_rollout_ref.model
    folder = resolve_model_folder(model.path)
    model_config = check_model(folder)
    check_sources(config, folder)
    text_model = model_config.get_text_config()
    tokenizer = load_tokenizer(folder, model.get("custom_chat_template"))
    vocabulary = vocabulary_size(model_config)
    check_placeholder(tokenizer, vocabulary)
    check_numbering(tokenizer)
    tools = run_tools(config)
    _pin_date(config, tokenizer, tools)
    check_tokenizer(tokenizer, options, template_arguments(config))
    has_law = fit_law(config, folder, tokenizer, vocabulary)
    ours = options.enabled or has_law or config.trainer.v1.trainer_mode == ASYNCHRONOUS
    loops = agent_loops(config) if ours else None
    if loops is not None and has_law:
        loops -= loops_without_law()
    data = check_data(config, loops)
    fit_prompt_length(config, tokenizer, data, tools)
    extra = extra_tokens(tokenizer, options.max_length, options.position)
    run = RunFolder(Path(config.run_dir).resolve())
    with open_dict(config):
        rollout = config.actor_rollout_ref.rollout
        if rollout.prompt_length is None:
            rollout.prompt_length = config.data.max_prompt_length + extra
        vllm = rollout.engine_kwargs.vllm
        if vllm.enable_prompt_embeds is None:
            vllm.enable_prompt_embeds = True if options.enabled else None
        config.run_dir = str(run.root)
        model.path = str(folder)
    check_lengths(config, text_model, extra)
    check_token_budgets(config)
    check_quantization(config, text_model)
    check_lora(config, model_config)
    fit_context(config)
    fit_bucket(config, folder)
    if config.trainer.device == "cpu" and not joins_cluster(config):
        fit_kv_cache(config, text_model)
        fit_threads(config, folder)
    if config.trainer.device == "cuda":
        check_held_prompts(config, text_model.hidden_size, smallest_gpu_bytes())
    check_prompts(config, tokenizer, options, vocabulary, data, tools)

    for files in data:
        files.write(config, run.data)

    checkpoint = checkpoint_to_resume(config)
    order = data_order(config)  # of what the trainer's node reads, too
    if checkpoint:
        check_whole(checkpoint, config.trainer.nnodes * config.trainer.n_gpus_per_node)
        # An adapter that is loaded has an alpha of its own.
        lora = None if model.get("lora_adapter_path") else (model.lora_rank, model.lora_alpha)
        check_model_of(checkpoint, model_config, lora)
        forget = config.trainer.v1.rsp_sync.forget_data_position
        if told := check_order(checkpoint, order, forget=forget):
            logger.warning(told)
        if step_of(checkpoint) >= (steps := config.trainer.total_training_steps or math.inf):
            logger.warning(
                "%s has all of trainer.total_training_steps=%s: nothing is left to train",
                checkpoint,
                steps,
            )
    options = _with_law(options, checkpoint, folder)
    if checkpoint:
        check_law(checkpoint, options)
    run.root.mkdir(parents=True, exist_ok=True)
    run.keep_checkpoints_at(Path(config.trainer.default_local_dir))
    keep_law(config, run, resumes=checkpoint is not None)
    tell_room(config, folder)
    stop_token = missing_stop_token(folder, tokenizer, **template_arguments(config))
    with open_dict(config):
        if stop_token is not None and vllm.get("generation_config") is None:
            vllm.generation_config = str(run.root / GENERATION_CONFIG)
            write_generation_config(run.root / GENERATION_CONFIG, folder, tokenizer, stop_token)
        config.trainer.v1.rsp_sync.data_order = order
        config.trainer.v1.rsp_sync.data_read = file_digests(config)  # as written for verl
        for name in _FILLED_IN:
            config.rsp[name] = getattr(options, name)
        _set_environment(config, run)
        _join_running_cluster(config)
    write_json(run.settings, OmegaConf.to_container(config.rsp, resolve=True))
    run.keep_earlier_metrics(Path(os.environ["VERL_FILE_LOGGER_PATH"]))  # the job's, if it has one
    return run


def _pin_date(config: DictConfig, tokenizer: PreTrainedTokenizerBase, tools: Tools) -> None:
    """Keep today's date out of the prompts, so that a resumed run has the same ones."""
    arguments = template_arguments(config)
    shown = {**arguments, "tools": [*tools.known.values()] or None}
    if not depends_on_the_day(tokenizer, **shown):
        return
    if argument := date_argument(tokenizer, **shown):
        with open_dict(config):
            config.data.apply_chat_template_kwargs = {**arguments, **argument}
        return
    logger.warning(
        "the chat template writes today's date into every prompt and takes no argument for it: a "
        "run that is resumed on another day, and an evaluation, have other prompts; to pin it, set "
        "actor_rollout_ref.model.custom_chat_template to one with a fixed date"
    )


def _with_law(options: RspOptions, checkpoint: Path | None, model: Path) -> RspOptions:
    """Fill in what the pretrained table decides: as set, else as the resumed checkpoint has it."""
    if not options.enabled:
        return options
    saved = (saved_law(checkpoint) if checkpoint else None) or {}
    if options.mean is None and saved.get("mean") is not None:
        options = replace(options, mean=saved["mean"], std=saved["std"])
    if options.mean is None:
        stats = embedding_stats(model)
        logger.info(
            "mu_E=%.6g sigma_E=%.6g over %d x %d entries of %s",
            stats.mean,
            stats.std,
            stats.vocab_size,
            stats.hidden_size,
            stats.tensor,
        )
        options = replace(options, mean=stats.mean, std=stats.std)
    if LAWS[options.law].from_table:
        folder = str(Path(options.table or saved.get("table") or model).resolve())
        digest = options.table_digest or saved.get("table_digest")
        digest = digest or open_embedding_table(folder).digest()
        recognised_table(folder, digest)
        options = replace(options, table=folder, table_digest=digest)
    return options


def _set_environment(config: DictConfig, run: RunFolder) -> None:
    """Give this process, and through Ray's runtime env all others, the run's environment."""
    variables = {
        "VERL_FILE_LOGGER_PATH": str(run.metrics),
        "TENSORBOARD_DIR": str(run.tensorboard),
        **events.environment(),
    }
    if config.trainer.device == "cpu":
        variables["VERL_PLATFORM"] = "cpu"
        variables |= _in_one_process(config.actor_rollout_ref.rollout)
    if config.rsp.table is not None:
        variables[FOLDER_VARIABLE] = config.rsp.table
    os.environ.update(variables)
    config.ray_kwargs.ray_init.runtime_env.env_vars.update(variables)
    give_way_to_job(config.ray_kwargs.ray_init.runtime_env.env_vars)


def _in_one_process(rollout: DictConfig) -> dict[str, str]:
    """Run vLLM's model within its engine's process where nothing splits it; on a CPU only.

    It would start one of its own, which takes as long as several steps.

    Returns:
        The environment variable that vLLM's CPU target wants for it.
    """
    if rollout.tensor_model_parallel_size > 1:
        return {}
    rollout.engine_kwargs.vllm.setdefault("distributed_executor_backend", "uni")
    return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def _join_running_cluster(config: DictConfig) -> None:
    """Drop the sizes of a cluster to start where there is one to join; Ray refuses both."""
    ray_init = config.ray_kwargs.ray_init
    if joins_cluster(config):
        for size in ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory"):
            ray_init.pop(size, None)
