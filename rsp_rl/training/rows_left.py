"""Rows that verl will leave out, and what is then left for a batch.

verl measures every prompt when it has started, leaves out what is too long or what the chat
template fails on, and divides by what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.row_files import BATCH, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

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


def count_left(
    data: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterator[tuple[Path, int, Row]],
) -> Left:
    """Measure prompts as verl's `RLHFDataset` does.

    Descriptions of tools, which it adds to them, are not counted.

    Args:
        data: The config's `data`.
        tokenizer: The model's.
        rows: All rows of a setting: file, number in it, row.
    """
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


def check_left(data: DictConfig, name: str, left: Left) -> None:
    """Say what is left out, and refuse what verl could not go on with.

    Args:
        data: The config's `data`.
        name: `train` or `val`.
        left: What `count_left` returned.

    Raises:
        ConfigError: If no row is left, fewer than a batch, or if rows that must be left out are
            not to be.
    """
    setting = f"data.{name}_files"
    reasons = left.reasons(data.max_prompt_length)
    if left.dropped and not data.get("filter_overlong_prompts", True):
        raise ConfigError(
            f"{setting}: {reasons}; their rollouts would fail. Drop these rows, or set "
            "data.filter_overlong_prompts=true, which does"
        )
    drawn, kept = kept_rows(data, name, left)
    if left.dropped:
        out = (len(left.dropped), left.rows)
        logger.warning("%s: %d of %d rows are left out: %s", setting, *out, reasons)
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


def kept_rows(data: DictConfig, name: str, left: Left) -> tuple[int, int]:
    """Rows that verl draws, and those of them that it keeps.

    `RLHFDataset` draws `max_samples` rows before it leaves any out. Which, it alone knows where
    there is no `data.seed`; then the most that it may keep.

    Args:
        data: See `check_left`.
        name: See `check_left`.
        left: See `check_left`.
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
