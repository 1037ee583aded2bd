"""Training and validation files before Ray starts: what verl will make of them, row by row.

verl drops what it cannot use, some minutes after the start and without a word that ends a run, and
divides by what is left. Here its rows are counted first; files that it cannot read, or reads
otherwise than we do, are written anew for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.prompt_files import Reading, checked_rows
from rsp_rl.data.row_files import BATCH, Row, data_files, write_rows
from rsp_rl.grading.gold import readable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: The reward function that the checks of golds speak for.
GRADER = "pkg://rsp_rl.grading.reward"

#: Arguments of a chat template that verl leaves out when it measures a prompt.
_NOT_MEASURED_WITH = ("tokenize", "return_dict", "return_tensors", "add_generation_prompt")


@dataclass
class Left:
    """Rows of one setting that verl will train on or validate with.

    Attributes:
        rows: All rows of its files.
        dropped: Row numbers, over all files, that verl leaves out.
        too_long: How many of them have a prompt above `data.max_prompt_length`.
        first_too_long: The first of these, in words.
        shortest: Tokens of the shortest prompt.
        not_rendered: How many of them the chat template fails on.
        first_not_rendered: The first of these, in words.
    """

    rows: int = 0
    dropped: list[int] = field(default_factory=list)
    too_long: int = 0
    first_too_long: str = ""
    shortest: int | None = None
    not_rendered: int = 0
    first_not_rendered: str = ""

    def reasons(self, limit: int) -> str:
        """Why rows are left out, with numbers and the first of each kind."""
        parts = []
        if self.too_long:
            parts.append(
                f"{self.too_long} with a prompt above data.max_prompt_length={limit} (first: "
                f"{self.first_too_long})"
            )
        if self.not_rendered:
            parts.append(
                f"{self.not_rendered} that the chat template fails on (first: "
                f"{self.first_not_rendered})"
            )
        return "; ".join(parts)


def prepare_data(
    config: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    agent_loops: Collection[str] | None,
    folder: Path,
) -> None:
    """Check the rows of `data.train_files` and `data.val_files`, and count what is left of them.

    In the config, paths become absolute; files that verl cannot read as they are become one that is
    written into the folder. What happens to any row is logged.

    Args:
        config: The composed config, changed in place.
        tokenizer: The model's.
        agent_loops: Those that a row may ask for; any if None.
        folder: Where files are written anew, made if needed.

    Raises:
        ConfigError: Naming file, row, cause and mend, for what training could not use; for fewer
            rows than a batch; and for validation without a row.
    """
    data = config.data
    if OmegaConf.select(data, "custom_cls.path"):
        logger.warning(
            "data.custom_cls.path=%s reads the data: its rows are not checked", data.custom_cls.path
        )
        return
    for name in ("train", "val"):
        _prepare_files(config, name, tokenizer, agent_loops, folder)


def _prepare_files(
    config: DictConfig,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    agent_loops: Collection[str] | None,
    folder: Path,
) -> None:
    data, setting = config.data, f"data.{name}_files"
    files = data_files(_plain(data[f"{name}_files"]), setting)
    graded = OmegaConf.select(config, "reward.custom_reward_function.path") == GRADER
    how = {"prompt_key": data.prompt_key, "agent_loops": agent_loops, "graded": graded}
    reading = Reading()
    left = _count_left(data, tokenizer, checked_rows(files, reading, **how))
    _check_left(data, name, left)
    if graded:
        _say_readable(setting, reading)
    else:
        logger.info("%s: golds are not checked, for another reward function takes them", setting)
    if not reading.as_is:
        file = folder / f"{name}.parquet"
        placed = list(checked_rows(files, Reading(), **how))
        places = [f"dataset {source}, row {number}" for source, number, _ in placed]
        mixed = write_rows(file, [row for *_, row in placed], places)
        changes = [f"{change} in {rows} rows" for change, rows in reading.changed.items()]
        changes += [f"numbers beside text became text in {name}" for name in mixed]
        said = "; ".join([f"written as verl reads them to {file}", *changes])
        logger.info("%s: %s", setting, said)
        files = [file]
    with open_dict(config):
        data[f"{name}_files"] = [str(file) for file in files]


def _plain(files: Any) -> Any:
    return list(files) if isinstance(files, ListConfig) else files


def _count_left(
    data: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterator[tuple[Path, int, Row]],
) -> Left:
    """As verl's `RLHFDataset` measures; its tools' descriptions, which it adds, are not counted."""
    arguments = dict(data.get("apply_chat_template_kwargs") or {})
    arguments = {name: arguments[name] for name in arguments if name not in _NOT_MEASURED_WITH}
    left = Left()
    while batch := list(islice(rows, BATCH)):
        prompts = [row[data.prompt_key] for *_, row in batch]
        for (file, number, _), length in zip(
            batch, prompt_lengths(tokenizer, prompts, arguments), strict=True
        ):
            place = f"{file}, row {number}"
            if isinstance(length, str):
                left.not_rendered += 1
                left.first_not_rendered = left.first_not_rendered or f"{place}: {length}"
                left.dropped.append(left.rows)
            else:
                left.shortest = min(length, length if left.shortest is None else left.shortest)
                if length > data.max_prompt_length:
                    left.too_long += 1
                    left.first_too_long = left.first_too_long or f"{place}, {length} tokens"
                    left.dropped.append(left.rows)
            left.rows += 1
    return left


def prompt_lengths(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any], arguments: dict[str, Any]
) -> list[int | str]:
    """Tokens of each prompt, or what its chat template says against it.

    Args:
        tokenizer: With a chat template.
        prompts: Chat messages.
        arguments: Passed on to the template.
    """
    lengths: list[int | str] = [0] * len(prompts)
    texts: dict[int, str] = {}
    for place, prompt in enumerate(prompts):
        try:
            texts[place] = tokenizer.apply_chat_template(
                prompt, tokenize=False, add_generation_prompt=True, **arguments
            )
        except Exception as error:  # templates raise whatever they like
            lengths[place] = " ".join(str(error).split()) or type(error).__name__
    if texts:
        encoded = tokenizer(list(texts.values()), add_special_tokens=False)["input_ids"]
        for place, ids in zip(texts, encoded, strict=True):
            lengths[place] = len(ids)
    return lengths


def _check_left(data: DictConfig, name: str, left: Left) -> None:
    """Say what is left out, and refuse what verl could not go on with."""
    setting = f"data.{name}_files"
    reasons = left.reasons(data.max_prompt_length)
    if left.dropped and not data.get("filter_overlong_prompts", True):
        raise ConfigError(
            f"{setting}: {reasons}; their rollouts would fail. Drop these rows, or set "
            "data.filter_overlong_prompts=true, which does"
        )
    drawn, kept = _kept(data, name, left)
    if left.dropped:
        logger.warning("%s: %d of %d rows are left out: %s", setting, *_out(left), reasons)
    if drawn < left.rows:
        logger.info("%s: data.%s_max_samples=%d of %d rows", setting, name, drawn, left.rows)
    why = f" ({left.rows} rows in the files"
    why += f", {drawn} drawn by data.{name}_max_samples" * (drawn < left.rows)
    why += f"; left out: {reasons}" * bool(reasons)
    why += f"; the shortest prompt has {left.shortest} tokens" * bool(left.too_long) + ")"
    if kept == 0:
        raise ConfigError(
            f"{setting}: no row is left{why}; raise data.max_prompt_length, or name other files"
        )
    if name == "val":
        return
    for size in ("train_batch_size", "gen_batch_size"):
        wanted = data.get(size) or 0
        if kept < wanted:
            raise ConfigError(
                f"{setting}: {kept} rows are left{why}, fewer than data.{size}={wanted}, and no "
                "step would have its batch; lower it (with actor_rollout_ref.actor."
                "ppo_mini_batch_size), or add rows"
            )
    rest = kept % data.train_batch_size
    if rest:
        logger.info(
            "%s: %d rows, %d batches an epoch; %s %d rows are left over in each",
            setting,
            kept,
            kept // data.train_batch_size,
            "other" if data.shuffle else "the last",
            rest,
        )


def _out(left: Left) -> tuple[int, int]:
    return len(left.dropped), left.rows


def _kept(data: DictConfig, name: str, left: Left) -> tuple[int, int]:
    """Rows that verl draws, and those of them that it keeps.

    `RLHFDataset` draws `max_samples` rows before it leaves any out. Which, it alone knows where
    there is no `data.seed`; then the most that it may keep.
    """
    most = data.get(f"{name}_max_samples", -1)
    if not 0 < most < left.rows:
        return left.rows, left.rows - len(left.dropped)
    if data.shuffle and data.seed is None:
        return most, min(most, left.rows - len(left.dropped))
    drawn = np.arange(most)
    if data.shuffle:
        drawn = np.random.default_rng(data.seed).choice(left.rows, size=most, replace=False)
    return most, most - len(set(drawn.tolist()) & set(left.dropped))


def _say_readable(setting: str, reading: Reading) -> None:
    read, tried, unread = readable(reading.golds)
    examples = f"; compared as text alone, e.g. {', '.join(map(repr, unread[:3]))}" * bool(unread)
    logger.info(
        "%s: the grader can read %.1f%% of the golds (%d of %d distinct ones%s)%s",
        setting,
        100 * read / tried,
        read,
        tried,
        f" tried, of {len(reading.golds)}" * (tried < len(reading.golds)),
        examples,
    )
    words = sum(rows for gold, rows in reading.golds.items() if gold.strip() == "None")
    if words:
        logger.warning(
            "%s: %d golds are the word 'None', as Python writes a missing value", setting, words
        )
