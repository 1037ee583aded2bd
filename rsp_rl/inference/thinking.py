"""A user's thoughts for one model: its table's root-mean-square filled in, texts in its tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.model_law import model_law
from rsp_rl.models.folder import check_model
from rsp_rl.models.stop_tokens import known_stop_tokens
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
    latent = getattr(settings.law, "latent_id", None)
    if latent in known_stop_tokens(folder, tokenizer):
        raise ConfigError(
            f"law.latent_id={latent} is a token that ends this model's output; choose another"
        )
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


def check_thoughts(
    prompt_ids: Sequence[int],
    phases: Phases | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    context: int | None,
    max_tokens: int | None,
    prompt: str,
) -> None:
    """Make sure that thoughts begin after a prompt, and leave room for an answer.

    Args:
        prompt_ids: Its tokens.
        phases: Of its requests, if they have a law.
        tokenizer: The model's.
        context: Longest prompt with output that the model takes, in tokens, if there is a limit.
        max_tokens: Most tokens of an output, if there is a limit.
        prompt: What the error calls it.

    Raises:
        ConfigError: If they do not.
    """
    if phases is None:
        return
    marker = (phases.begin_text or tokenizer.decode(list(phases.begin))).rstrip()
    if marker and tokenizer.decode(list(prompt_ids)).rstrip().endswith(marker):
        raise ConfigError(
            f"{prompt} ends with law.begin={marker!r} already, which the model will not write "
            "again; leave law.begin out: thoughts then begin with the first token"
        )
    if phases.max_thoughts is None:
        return
    most, forced = phases.max_thoughts, len(phases.on_cut)
    said = f"law.max_thoughts={most}" + (f" with {forced} forced tokens" if forced > 1 else "")
    if max_tokens is not None and most + forced >= max_tokens:
        raise ConfigError(f"{said} leaves no room for an answer in max_tokens={max_tokens}")
    if context is not None and len(prompt_ids) + most + forced >= context:
        raise ConfigError(
            f"{prompt} has {len(prompt_ids)} tokens, and {said} leaves no room for an answer in a "
            f"context of {context}; use a model with a longer one, or fewer thoughts"
        )
