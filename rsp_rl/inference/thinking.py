"""A user's thoughts for one model: its table's root-mean-square filled in, texts in its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.model_law import model_law
from rsp_rl.models.folder import check_model
from rsp_rl.models.vocabulary import vocabulary_size
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import Thinking, ThoughtSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class ModelThinking:
    """What all requests of a model have in common that think alike.

    Attributes:
        settings: The user's, filled in.
        phases: Theirs, in the model's tokens.
    """

    settings: ThoughtSettings
    phases: Phases

    def of(self, seed: int) -> Thinking:
        """One request's.

        Args:
            seed: Of its noise, an unsigned 64-bit integer.
        """
        return Thinking(self.settings.law, self.phases, seed)

    def answer_sampling(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """See `ThoughtSettings.answer_sampling`."""
        return self.settings.answer_sampling(sampling)


def thinking_of_model(
    settings: ThoughtSettings,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    table: tuple[float, float] | None = None,
) -> ModelThinking:
    """Settings made ready for a model, without loading it.

    Args:
        settings: The user's.
        folder: Hugging Face model folder.
        tokenizer: The model's.
        table: Mean and standard deviation of the pretrained embedding table's entries; by default
            of the model's own.

    Raises:
        ConfigError: If they do not fit the model.
    """
    vocabulary = vocabulary_size(check_model(folder)) or len(tokenizer)
    phases = settings.resolve(tokenizer, vocabulary)
    return ModelThinking(_with_rms(settings, folder, table), phases)


def _with_rms(
    settings: ThoughtSettings, folder: Path, table: tuple[float, float] | None
) -> ThoughtSettings:
    """With the root-mean-square of the table's entries, where the law asks for one."""
    law = settings.law
    if getattr(law, "rms", 0.0) is not None or "rms" not in {own.name for own in fields(law)}:
        return settings
    if table is None:
        stats = model_law(folder)
        table = stats.mean, stats.std
    return replace(settings, law=replace(law, rms=math.hypot(*table)))  # type: ignore[call-arg]


def check_thoughts(tokens: int, phases: Phases | None, context: int | None, prompt: str) -> None:
    """Make sure that the most thoughts leave room for an answer.

    Args:
        tokens: Of the prompt.
        phases: Of its requests, if they have a law.
        context: Longest prompt with output that the model takes, in tokens, if there is a limit.
        prompt: What the error calls it.

    Raises:
        ConfigError: If they do not.
    """
    most = None if phases is None else phases.max_thoughts
    if most is None or context is None or tokens + most < context:
        return
    raise ConfigError(
        f"{prompt} has {tokens} tokens, and law.max_thoughts={most} leaves no room "
        f"for an answer in a context of {context}; use a model with a longer one, or fewer thoughts"
    )
