"""Every row's prompt tried before Ray starts, as verl and the rollouts will make it.

verl leaves rows out whose prompt the chat template refuses, or that are too long, and says so in
a worker's log alone. Here they are counted and named; more than `data.max_lost_share` of a file's
rows is an error.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.dials.options import RspOptions
from rsp_rl.models.kept_text import Characters
from rsp_rl.models.vocabulary import check_tokens
from rsp_rl.training.rows_left import check_left
from rsp_rl.training.tools import Tools
from rsp_rl.training.train_data import CheckedFiles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

#: Rows of a kind that a message names.
_NAMED = 5

#: What Hydra leaves a text.
_SWITCHES = ("yes", "no", "true", "false")


def check_prompts(
    config: DictConfig,
    tokenizer: PreTrainedTokenizerBase,
    options: RspOptions,
    vocabulary: int | None,
    checked: Sequence[CheckedFiles],
    tools: Tools,
) -> None:
    """Try the prompts of all rows of `data.train_files` and `data.val_files`.

    Args:
        config: The run's config, `rollout.prompt_length` set.
        tokenizer: The model's, with the run's chat template.
        options: Whether and where soft prompts go.
        vocabulary: V, rows of the model's embedding table, if known.
        checked: The files, as `check_data` returned them.
        tools: The run's.

    Raises:
        ConfigError: If more than `data.max_lost_share` of a file's rows would be left out, or what
            is left is not enough (`check_left`), or a prompt has tokens that the model does not
            have, or tools that the run does not have; names file and row.
        PlacementError: If a soft prompt has no place in a row's prompt; names file and row.
    """
    data = config.data
    share = data.get("max_lost_share") or 0.0
    if not (isinstance(share, int | float) and 0 <= share <= 1):
        raise ConfigError(f"data.max_lost_share={share!r} must be a number from 0 to 1")
    prompts = _Prompts(
        tokenizer,
        template_arguments(config),
        Characters(tokenizer),
        tools,
        longest=data.max_prompt_length,
        room=config.actor_rollout_ref.rollout.prompt_length,
        vocabulary=vocabulary,
    )
    placing = options if options.enabled else None
    for files in checked:
        rsp = placing if files.name == "train" or options.validation else None
        losses: dict[Path, _Lost] = {}
        dropped, rows = [], 0
        for file, number, row in files.rows():
            lost = losses.setdefault(file, _Lost())
            where = f"dataset {file}, row {number}"
            try:
                shown = tools.shown(row)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
            if not prompts.try_row(where, number, row[data.prompt_key], shown, rsp, lost):
                dropped.append(rows)
            rows += 1
        drops = bool(data.filter_overlong_prompts)
        said = [
            lost.report(file, share, drops=drops, longest=prompts.longest)
            for file, lost in losses.items()
        ]
        check_left(data, files.name, rows, dropped, "; ".join(filter(None, said)))
    tools.report()
    if prompts.lack_beginning:
        logger.warning(
            "the chat template begins prompts without %s, which the tokenizer puts before every "
            "other text; if the model was trained with it, write it into the template "
            "(actor_rollout_ref.model.custom_chat_template)",
            tokenizer.bos_token,
        )


def template_arguments(config: DictConfig) -> dict[str, Any]:
    """`data.apply_chat_template_kwargs`, which every prompt of a run is rendered with.

    Raises:
        ConfigError: If they are no mapping, name what is no argument of a template, or give a truth
            value's word.
    """
    kwargs = config.data.get("apply_chat_template_kwargs") or {}
    if OmegaConf.is_config(kwargs):
        kwargs = OmegaConf.to_container(kwargs, resolve=True)
    if not isinstance(kwargs, dict):
        raise ConfigError(
            f"data.apply_chat_template_kwargs={kwargs!r:.60} must be a mapping, such as "
            "{enable_thinking: false}"
        )
    if taken := sorted(kwargs.keys() & _NOT_THE_TEMPLATES):
        raise ConfigError(
            f"data.apply_chat_template_kwargs.{taken[0]} is no argument of the chat template: "
            f"{_NOT_THE_TEMPLATES[taken[0]]}"
        )
    for name, value in kwargs.items():
        if isinstance(value, str) and value.lower() in _SWITCHES:
            raise ConfigError(
                f"data.apply_chat_template_kwargs.{name}={value!r} is a text, which templates take "
                "for true; set it to True or False"
            )
    return kwargs


_VERLS = "verl sets it by itself, and would leave every row out; remove it"
_CUTS = "it would cut or pad prompts where verl makes them, and there alone; remove it"
#: What `apply_chat_template` takes and templates do not see, and what to do instead.
_NOT_THE_TEMPLATES = {
    **dict.fromkeys(("add_generation_prompt", "tokenize", "return_dict", "return_tensors"), _VERLS),
    **dict.fromkeys(("conversation", "continue_final_message"), _VERLS),
    **dict.fromkeys(("padding", "truncation", "max_length", "tokenizer_kwargs"), _CUTS),
    "return_assistant_tokens_mask": _CUTS,
    "tools": "name them in actor_rollout_ref.rollout.multi_turn.tool_config_path or "
    "function_tool_path",
    "chat_template": "set actor_rollout_ref.model.custom_chat_template, which all checks read",
}


@dataclass
class _Lost:
    """Rows of one file that verl would leave out, and why; those that it keeps and one may not."""

    rows: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    too_long: dict[int, int] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    characters: set[str] = field(default_factory=set)

    def report(self, file: Path, share: float, *, drops: bool, longest: int) -> str:
        """Say what is lost, and return it in words; none if nothing is.

        Raises:
            ConfigError: If it is too much, or if verl would not leave the rows out but fail.
        """
        if self.unknown:
            logger.warning(
                "dataset %s: the tokenizer does not know all characters of %d of %d rows (%s), "
                "such as %s; the model reads nothing, or its unknown token, in their place",
                *(file, len(self.unknown), self.rows, _some(self.unknown)),
                ", ".join(map(repr, sorted(self.characters)[:_NAMED])),
            )
        if self.answered:
            logger.warning(
                "dataset %s: %d of %d rows end with the assistant's own message (%s); verl closes "
                "it and has the model begin another: if it is the answer, remove it",
                *(file, len(self.answered), self.rows, _some(self.answered)),
            )
        kinds = []
        if self.refused:
            number, cause = next(iter(self.refused.items()))
            kinds.append(
                f"{len(self.refused)} that the chat template refuses ({_some([*self.refused])}; "
                f"row {number}: {cause})"
            )
        if self.too_long:
            number, tokens = max(self.too_long.items(), key=lambda row: row[1])
            kinds.append(
                f"{len(self.too_long)} longer than data.max_prompt_length={longest} "
                f"({_some([*self.too_long])}; the longest, row {number}, has {tokens} tokens)"
            )
        lost = len(self.refused) + len(self.too_long)
        text = f"dataset {file}: {lost} of {self.rows} rows are lost, " + " and ".join(kinds)
        if lost and not drops:
            raise ConfigError(
                f"{text}; mend or remove them, or have them left out with "
                "data.filter_overlong_prompts=True and data.max_lost_share"
            )
        if lost > share * self.rows:
            accept = f"data.max_lost_share={-(-lost * 1000 // self.rows) / 1000}"
            raise ConfigError(
                f"{text}; mend or remove them, or accept the loss with {accept}"
                if lost < self.rows
                else f"{text}; mend them, or the setting that refuses them all"
            )
        if not lost:
            return ""
        logger.warning("%s; within data.max_lost_share=%s", text, share)
        return text


def _some(rows: Sequence[int]) -> str:
    named = ", ".join(map(str, rows[:_NAMED]))
    return f"row{'s' * (len(rows) > 1)} {named}{', ...' * (len(rows) > _NAMED)}"


@dataclass
class _Prompts:
    """Makes prompts as verl and the rollouts do; what was tried once is known.

    Attributes:
        tokenizer: The model's.
        arguments: The chat template's.
        characters: What the tokenizer knows of the rows' characters.
        tools: The run's.
        longest: Most tokens of a plain prompt; verl leaves out what is longer.
        room: Most tokens of a prompt with its soft prompt.
        vocabulary: V, if known.
        lack_beginning: Whether prompts begin without the BOS that texts get.
    """

    tokenizer: PreTrainedTokenizerBase
    arguments: dict[str, Any]
    characters: Characters
    tools: Tools
    longest: int
    room: int
    vocabulary: int | None
    lack_beginning: bool = False
    # A large training set may be a small one many times over (DAPO-Math-17k as published).
    _known: dict[bytes, tuple[str | None, int, set[str]]] = field(default_factory=dict)

    def try_row(
        self,
        where: str,
        number: int,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        rsp: RspOptions | None,
        lost: _Lost,
    ) -> bool:
        """Make one row's prompt; whether verl keeps the row.

        Raises:
            ConfigError, PlacementError: For what no run could go on with.
        """
        lost.rows += 1
        if messages[-1]["role"] == "assistant":
            lost.answered.append(number)
        text = json.dumps([messages, tools, rsp is not None], default=str, ensure_ascii=True)
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._make(where, messages, tools, rsp)
        refusal, tokens, unknown = self._known[key]
        if refusal is not None:
            lost.refused[number] = refusal
        elif tokens > self.longest:
            lost.too_long[number] = tokens
        elif unknown:
            lost.unknown.append(number)
            lost.characters |= unknown
        return refusal is None and tokens <= self.longest

    def _make(
        self,
        where: str,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        rsp: RspOptions | None,
    ) -> tuple[str | None, int, set[str]]:
        """Why the template refuses, tokens that verl counts, characters that are unknown."""
        try:
            counted = ids = self._plain(messages, self.tools.counted)
            if tools != self.tools.counted:
                ids = self._plain(messages, tools)
        except Exception as error:  # a template may raise as it likes
            return f"{error or type(error).__name__}", 0, set()
        if len(counted) > self.longest:
            return None, len(counted), set()
        if len(ids) > self.room:
            raise PlacementError(
                f"{where}: its prompt has {len(ids)} tokens with the tools that it shows, more "
                f"than actor_rollout_ref.rollout.prompt_length={self.room}; raise it"
            )
        check_tokens(self.tokenizer, ids, self.vocabulary, f"{where}: its prompt")
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:1] != [bos] and self.tokenizer("").input_ids[:1] == [bos]:
            self.lack_beginning = True
        if rsp is not None:
            try:
                placed = rsp.place(
                    self.tokenizer, messages, rsp.max_length, tools=tools, **self.arguments
                )
            except PlacementError as error:
                raise PlacementError(f"{where}: {error}") from error
            if len(placed.token_ids) > self.room:
                raise PlacementError(
                    f"{where}: its prompt has {len(placed.token_ids)} tokens with its soft prompt, "
                    f"more than actor_rollout_ref.rollout.prompt_length={self.room}; raise it"
                )
        texts = (message["content"] for message in messages)
        unknown = [self.characters.unknown(text) for text in texts if isinstance(text, str)]
        return None, len(counted), set().union(*unknown)

    def _plain(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
    ) -> list[int]:
        """As verl's dataset and agent loops make it, whose arguments these are."""
        return self.tokenizer.apply_chat_template(
            messages,
            tools=tools,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **self.arguments,
        )
