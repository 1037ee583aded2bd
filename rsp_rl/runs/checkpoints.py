"""verl checkpoints: which one to resume, under which law, and as Hugging Face folders."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import locked, read_json, write_json
from rsp_rl.console.screen import say
from rsp_rl.dials.options import RspOptions
from rsp_rl.runs.folder import SETTINGS_FILE
from rsp_rl.runs.merging import has_adapter, made_of, merge_shards, shards_digest

#: verl's file that names the newest checkpoint; `rsp_rl.runs.saving` moves it last.
TRACKER = "latest_checkpointed_iteration.txt"

#: What a checkpoint's files were when it was saved, `{path: bytes}`.
SIZES_FILE = "sizes.json"

#: What a model's weights are as wide as.
_SHAPE = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads"),
)

#: What decides a run's draws and must not change when it is resumed.
_LAW = (
    *("length", "position", "scale", "mode", "law", "length_schedule", "scale_schedule"),
    *("probability", "mixing", "seed", "mean", "std", "table_digest"),
)


def latest_checkpoint(checkpoints: Path) -> Path:
    """The newest checkpoint that was saved whole (the tracker file is moved last).

    Raises:
        RunFolderError: If there is none.
    """
    tracker = checkpoints / TRACKER
    if not tracker.is_file():
        raise RunFolderError(
            f"{checkpoints} holds no finished checkpoint; is trainer.save_freq above 0?"
        )
    newest = tracker.read_text().strip()
    if not newest.isdigit():
        raise RunFolderError(
            f"{tracker} holds {newest!r:.40} and names no checkpoint; write the number of the last "
            "whole global_step_N into it"
        )
    folder = checkpoints / f"global_step_{newest}"
    if not folder.is_dir():
        raise RunFolderError(f"{tracker} names {folder.name}, which is missing; restore it")
    return folder


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that verl will resume from (its trainer's `_load_checkpoint`), if any.

    Raises:
        ConfigError: If `trainer.resume_mode=resume_path` names no checkpoint.
        RunFolderError: If the newest checkpoint is missing; verl would start anew over the others.
    """
    trainer = config.trainer
    if trainer.resume_mode == "resume_path":
        folder = Path(str(trainer.resume_from_path)).expanduser()
        if not folder.is_dir() or not folder.name.startswith("global_step_"):
            raise ConfigError(
                f"trainer.resume_from_path={trainer.resume_from_path} is no checkpoint; give a "
                "global_step_N folder, or leave trainer.resume_mode=auto"
            )
        return folder
    checkpoints = Path(trainer.default_local_dir)
    if trainer.resume_mode == "disable" or not (checkpoints / TRACKER).is_file():
        return None
    return latest_checkpoint(checkpoints)


def damage(checkpoint: Path) -> str | None:
    """What a checkpoint lacks of what was saved, `None` if it is whole.

    A checkpoint without a list of sizes, of plain verl, is taken as it is.
    """
    sizes = checkpoint / SIZES_FILE
    for name, size in (read_json(sizes) if sizes.is_file() else {}).items():
        file = checkpoint / name
        if not file.is_file():
            return f"{file} is missing"
        if file.stat().st_size != size:
            return f"{file} has {file.stat().st_size} bytes of {size}"
    return None


def check_whole(checkpoint: Path, ranks: int) -> None:
    """Make sure that verl can load a checkpoint.

    Args:
        checkpoint: A `global_step_N` folder.
        ranks: Ranks of the run; verl reads a file for each.

    Raises:
        RunFolderError: Naming the first file that is missing or cut short.
        ConfigError: If another number of ranks saved it.
    """
    if problem := damage(checkpoint):
        raise RunFolderError(
            f"{problem}: the checkpoint is not whole; restore the file, or go back with "
            f"{_way_back(checkpoint)}"
        )
    shards = list((checkpoint / "actor").glob("model_world_size_*_rank_*.pt"))
    if shards and not any(f"_world_size_{ranks}_" in shard.name for shard in shards):
        raise ConfigError(
            f"{checkpoint} was saved by {len(shards)} ranks and this run has {ranks}; resume with "
            f"trainer.nnodes x trainer.n_gpus_per_node = {len(shards)}"
        )


def check_model_of(checkpoint: Path, model: Any, lora: tuple[int, int] | None) -> None:
    """Make sure that a checkpoint's weights are those of the run's model.

    Args:
        checkpoint: A `global_step_N` folder; one that does not say is taken as it is.
        model: The model's config (transformers').
        lora: Rank and alpha of the run's adapter, rank 0 without; None if they are not known.

    Raises:
        ConfigError: Naming the first width that differs; loading would fail with all of them.
    """
    kept = checkpoint / "actor" / "huggingface" / "config.json"
    saved = read_json(kept) if kept.is_file() else {}
    for name in _SHAPE:
        if name in saved and saved[name] != getattr(model, name, saved[name]):
            raise ConfigError(
                f"{checkpoint} is of a model with {name}={saved[name]}, and "
                f"actor_rollout_ref.model.path has {getattr(model, name)}; resume with that model, "
                "or start anew with another run_dir"
            )
    adapter = checkpoint / "actor" / "lora_train_meta.json"
    had = read_json(adapter) if adapter.is_file() else {"r": 0}
    # Another alpha would load, and make another policy of the same weights.
    rank, alpha = had.get("r", 0), had.get("lora_alpha")
    if saved and lora and (rank != lora[0] or alpha not in (None, lora[1])):
        raise ConfigError(
            f"{checkpoint} has a LoRA adapter of rank {rank} and alpha {alpha}, and the run asks "
            f"for rank {lora[0]} (0: none) and alpha {lora[1]}; resume with what it had "
            "(actor_rollout_ref.model.lora_rank, lora_alpha), or start anew with another run_dir"
        )


def _way_back(checkpoint: Path) -> str:
    """The overrides that resume from the newest whole checkpoint before this one."""
    for folder in reversed(finished_checkpoints(checkpoint.parent).values()):
        if step_of(folder) < step_of(checkpoint) and damage(folder) is None:
            return f"trainer.resume_mode=resume_path trainer.resume_from_path={folder}"
    return "trainer.resume_mode=disable, which starts anew: no earlier one is whole"


def step_of(checkpoint: Path) -> int:
    """The step that a `global_step_N` folder was saved after."""
    return int(checkpoint.name.removeprefix("global_step_"))


def save_law(checkpoint: Path, options: RspOptions) -> None:
    """Put the law of the run's draws into a checkpoint."""
    settings = asdict(options)
    # Where the table lies may change; the digest says which it is.
    write_json(checkpoint / SETTINGS_FILE, {name: settings[name] for name in (*_LAW, "table")})


def saved_law(checkpoint: Path) -> dict[str, Any] | None:
    """The law that a checkpoint was trained under, `None` for one of plain verl."""
    file = checkpoint / SETTINGS_FILE
    return read_json(file) if file.is_file() else None


def check_law(checkpoint: Path, options: RspOptions) -> None:
    """Compare a checkpoint's law with that of the run that resumes from it.

    A checkpoint of plain verl is taken as it is.

    Raises:
        ConfigError: If they differ; names the first difference and both ways out.
    """
    saved = saved_law(checkpoint)
    if saved is None:
        return
    # What an older checkpoint does not name had its default.
    saved = {**asdict(RspOptions()), **saved}
    if not options.enabled and not RspOptions.from_config(saved).enabled:
        return
    for name, value in asdict(options).items():
        if name in _LAW and saved[name] != value:
            raise ConfigError(
                f"rsp.{name}={value} but {checkpoint} was trained with {saved[name]}; resume "
                f"with rsp.{name}={saved[name]}, or start anew with another run_dir or "
                "trainer.resume_mode=disable"
            )


def finished_checkpoints(checkpoints: Path) -> dict[int, Path]:
    """Checkpoints that were saved whole and still hold their weights, by step, in order.

    The tracker file is moved last: a later step than it names is still being saved. Of pruned
    checkpoints (`trainer.max_actor_ckpt_to_keep`) the folder without weights is left.
    """
    tracker = checkpoints / TRACKER
    newest = tracker.read_text().strip() if tracker.is_file() else ""
    if not newest.isdigit():  # none yet, or verl is writing it this moment
        return {}
    found = {}
    for folder in checkpoints.glob("global_step_*"):
        step = folder.name.removeprefix("global_step_")
        if step.isdigit() and int(step) <= int(newest) and _has_weights(folder):
            found[int(step)] = folder
    return dict(sorted(found.items()))


def _has_weights(checkpoint: Path) -> bool:
    shards = (checkpoint / "actor").glob("model_world_size_*")
    return any(shards) or _saved_model(checkpoint) is not None


def _saved_model(checkpoint: Path) -> Path | None:
    """The Hugging Face folder that verl saved beside the shards, if it was asked for weights.

    That of a LoRA run is none: its weights have peft's names, which no model loads.
    """
    folder = checkpoint / "actor" / "huggingface"
    whole = any(folder.glob("*.safetensors")) and not has_adapter(checkpoint / "actor")
    return folder if whole else None


def merge_checkpoint(checkpoint: Path) -> Path:
    """A checkpoint as a Hugging Face folder: made of its shards, once, beside it.

    A checkpoint that has one already (`checkpoint.save_contents` with `hf_model`) is taken as it
    is. One that verl's merger made, here or by hand, is made again if the shards are there: it is
    rounded to bfloat16, and of a LoRA run it is the base model.

    Args:
        checkpoint: A `global_step_N` folder.

    Returns:
        `<checkpoint>/merged`, which exists only when it is complete, or verl's own folder.

    Raises:
        RunFolderError: As `merge_shards`, or if another process is converting the checkpoint.
    """
    if saved := _saved_model(checkpoint):
        return saved
    target = merged_folder(checkpoint)
    with locked(checkpoint):
        actor, made = checkpoint / "actor", made_of(target)
        if made is not None and made.get("shards") == shards_digest(actor):
            return target
        partial = checkpoint / ".merged.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a conversion that was cut off
        try:
            merge_shards(actor, partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if target.is_dir():
            by = "verl's merger, rounded, without an adapter" if made is None else "other shards"
            say(f"{target} was made by {by}: it is made again")
            card = target / "README.md"
            if card.is_file():  # somebody's own, it may be, of other weights
                kept = card.replace(checkpoint / "README.earlier.md")
                say(f"the README.md that was in it is {kept} now")
            shutil.rmtree(target)
        os.replace(partial, target)
    return target


def merged_folder(checkpoint: Path) -> Path:
    """Where `merge_checkpoint` puts what it converts."""
    return checkpoint / "merged"
