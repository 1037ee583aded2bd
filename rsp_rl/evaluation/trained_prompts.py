"""Whether an evaluation asks as training did: template, tokenizer, chat-template arguments.

Rows of the training's own files are put to both: as training's chat template renders them, and as
the protocol's template asks the question that is in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import KnownError
from rsp_rl.data.row_files import read_rows
from rsp_rl.data.templates import Template, get_template
from rsp_rl.models.folder import load_tokenizer
from rsp_rl.placement.dates import date_argument

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: A template differs in every row or in none; of these, what all have in common is no question's.
_ROWS = 32

#: Characters shown of either prompt, from where they part.
_SHOWN = 60


def unlike_training(
    config: DictConfig, files: Sequence[Path], template: str, evaluated: Path, base: Path
) -> list[str]:
    """What an evaluation's prompts have other than training's had, a sentence each.

    Args:
        config: The run's.
        files: Its data, best first: of validation, which is what is compared.
        template: The protocol's, by name.
        evaluated: Folder of the model that is asked.
        base: Folder of the model that training started from, whose tokenizer it used.

    Returns:
        Empty if they are the same token by token; one sentence too if that cannot be told.
    """
    try:
        file, conversations = _conversations(files, config.data.get("prompt_key", "prompt"))
        own = load_tokenizer(base, config.actor_rollout_ref.model.get("custom_chat_template"))
        kwargs = OmegaConf.to_container(config.data).get("apply_chat_template_kwargs") or {}
        kwargs = {**date_argument(own, **kwargs), **kwargs}  # as training pins it
        asked = load_tokenizer(evaluated)
        found = list(_compare(conversations, own, kwargs, get_template(template), asked))
    # A chat template may raise anything, and so may a file that has changed since.
    except Exception as error:
        cause = str(error) if isinstance(error, KnownError) else f"{type(error).__name__}: {error}"
        return [f"the prompts could not be compared with training's: {' '.join(cause.split())}"]
    asks = f"template {template} does not ask as {file} did in training"
    return [*_tools(config), *(f"{asks}: {what}" for what in found)]


def _conversations(files: Sequence[Path], column: str) -> tuple[Path, list[list[dict[str, Any]]]]:
    """The first file that is still there, and the conversations of its first rows."""
    for file in files:
        if file.is_file():
            prompts = (row[column] for row in islice(read_rows(file), _ROWS))
            return file, [json.loads(p) if isinstance(p, str) else p for p in prompts]
    raise FileNotFoundError("none of the run's data files is still there")


def _tools(config: DictConfig) -> Iterator[str]:
    rollout = config.actor_rollout_ref.get("rollout") or {}
    multi_turn = rollout.get("multi_turn") or {}
    for name in ("tool_config_path", "function_tool_path"):
        loop = (rollout.get("agent") or {}).get("default_agent_loop", "single_turn_agent")
        if multi_turn.get(name) and loop != "single_turn_agent":
            yield f"training's prompts showed the tools of {multi_turn[name]}, these show none"


def _compare(
    conversations: list[list[dict[str, Any]]],
    own: PreTrainedTokenizerBase,
    kwargs: dict[str, Any],
    template: Template,
    asked: PreTrainedTokenizerBase,
) -> Iterator[str]:
    instruction = getattr(template, "instruction", "")
    questions = []
    for row, messages in enumerate(conversations):
        text = own.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **kwargs
        )
        trained = own(text, add_special_tokens=False).input_ids
        question = [turn["content"] for turn in messages if turn["role"] == "user"][-1]
        question = question.removesuffix(instruction)
        questions.append(question)
        placed = template.place(asked, question).token_ids
        if placed != trained:
            yield f"row {row}, {_parting(own.decode(trained), asked.decode(placed))}"
            return
    for end in (0, -1):
        lines = {question.split("\n")[end] for question in questions if "\n" in question.strip()}
        many = all("\n" in question.strip() for question in questions) and len(questions) > 1
        if many and len(lines) == 1 and (line := lines.pop()).strip():
            yield f"there every question {'ends' if end else 'begins'} with {line!r:.120}"


def _parting(trained: str, asked: str) -> str:
    """Two prompts from a little before they part."""
    if trained == asked:
        return "the same text has other tokens"
    pairs = zip(trained, asked, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    start = max(0, common - 10)
    shown = (text[start : start + _SHOWN] for text in (trained, asked))
    return "{!r} there, {!r} here".format(*shown)
