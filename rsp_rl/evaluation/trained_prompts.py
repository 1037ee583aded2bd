"""Whether an evaluation asks as training did: template, tokenizer, chat-template arguments.

Rows of the training's own files are put to both: as training's chat template renders them, and as
the protocol's template asks the question that is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf

from rsp_rl.basics.errors import KnownError
from rsp_rl.data.templates import Template, get_template
from rsp_rl.models.folder import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: A template differs in every row or in none; of these, what all have in common is no question's.
_ROWS = 32

#: Characters shown of either prompt, from where they part.
_SHOWN = 60


def unlike_training(config: DictConfig, template: str, evaluated: Path, base: Path) -> list[str]:
    """What an evaluation's prompts have other than training's had, a sentence each.

    Args:
        config: The run's.
        template: The protocol's, by name.
        evaluated: Folder of the model that is asked.
        base: Folder of the model that training started from, whose tokenizer it used.

    Returns:
        Empty if they are the same token by token; one sentence too if that cannot be told.
    """
    try:
        file, conversations = _conversations(config)
        own = load_tokenizer(base, config.actor_rollout_ref.model.get("custom_chat_template"))
        kwargs = OmegaConf.to_container(config.data).get("apply_chat_template_kwargs") or {}
        asked = load_tokenizer(evaluated)
        found = list(_compare(conversations, own, kwargs, get_template(template), asked))
    # A chat template may raise anything, and so may a file that has changed since.
    except Exception as error:
        cause = str(error) if isinstance(error, KnownError) else f"{type(error).__name__}: {error}"
        return [f"the prompts could not be compared with training's: {' '.join(cause.split())}"]
    return [f"template {template} does not ask as {file} did in training: {what}" for what in found]


def _conversations(config: DictConfig) -> tuple[Path, list[list[Mapping[str, Any]]]]:
    """A file of the run and the first rows of it: of validation, which is what is compared."""
    for given in (config.data.val_files, config.data.train_files):
        names = [given] if isinstance(given, str) else list(given or [])
        for file in (Path(str(name)).expanduser() for name in names):
            if file.is_file() and file.suffix == ".parquet":
                column = config.data.get("prompt_key", "prompt")
                batch = next(pq.ParquetFile(file).iter_batches(_ROWS, columns=[column]))
                return file, batch.column(0).to_pylist()
    raise FileNotFoundError("none of the run's data files is a parquet file that is still there")


def _compare(
    conversations: list[list[Mapping[str, Any]]],
    own: PreTrainedTokenizerBase,
    kwargs: dict[str, Any],
    template: Template,
    asked: PreTrainedTokenizerBase,
) -> Iterator[str]:
    instruction = getattr(template, "instruction", "")
    questions = []
    for row, messages in enumerate(conversations):
        # Parquet fills the fields that a message lacks with null.
        messages = [{k: v for k, v in turn.items() if v is not None} for turn in messages]
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
