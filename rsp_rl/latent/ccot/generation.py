"""Answers questions: theta reads, phi thinks until its thoughts end, psi writes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.answers import opening_of, write
from rsp_rl.latent.ccot.batches import pad_left
from rsp_rl.latent.ccot.ending import Ending
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.ccot.thoughts import read, think
from rsp_rl.models.context import context_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answer:
    """To one question.

    Attributes:
        text: With the mark that begins an answer.
        thoughts: How many.
        cut_off: Whether they ended at the cap, and not by the classifier.
        tokens: Of the text.
        ended: Whether the end-of-text token came, within the limit.
        seconds: Wall time of its batch over the batch's questions.
    """

    text: str
    thoughts: int
    cut_off: bool
    tokens: int
    ended: bool
    seconds: float


def answer_all(
    adapters: Adapters,
    ending: Ending,
    questions: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    settings: CcotSettings,
    *,
    batch_size: int = 32,
) -> Iterator[Answer]:
    """Greedy answers, in the order of the questions.

    Args:
        adapters: The model.
        ending: The classifier.
        questions: Token ids of each.
        tokenizer: Of the model.
        settings: Those of the training.
        batch_size: Questions at a time.

    Raises:
        ConfigError: If the model's context holds less than a question, the most thoughts that it
            may have, and the longest answer.
    """
    check_room(adapters.model.config, questions, settings)
    for first in range(0, len(questions), batch_size):
        yield from _answer(
            adapters, ending, questions[first : first + batch_size], tokenizer, settings
        )


def check_room(
    config: PretrainedConfig, questions: Sequence[Sequence[int]], settings: CcotSettings
) -> None:
    """See `answer_all`."""
    context = context_of(config)
    longest = max(map(len, questions), default=0)
    needed = longest + settings.cap + settings.max_new_tokens
    if context is not None and needed > context:
        raise ConfigError(
            f"a question of {longest} tokens, {settings.cap} thoughts and an answer of "
            f"{settings.max_new_tokens} tokens need {needed} positions, and the model's context is "
            f"{context}; set a lower ratio, longest_chain or max_new_tokens"
        )


@torch.no_grad()
def _answer(
    adapters: Adapters,
    ending: Ending,
    questions: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    settings: CcotSettings,
) -> list[Answer]:
    begun = time.perf_counter()
    layer = settings.layer_of(adapters.layers)
    stream, first_Bd = read(adapters, pad_left(questions).to(adapters.device), layer)
    counts, cut_off = [0] * len(questions), [False] * len(questions)
    if settings.ratio:
        ended_B = torch.zeros(len(questions), dtype=torch.bool, device=adapters.device)

        def goes_on(done: int, last_Bd: torch.Tensor) -> torch.Tensor:
            ended_B.logical_or_(ending.logits(last_Bd).sigmoid() > settings.end_probability)
            return ~ended_B if done < settings.cap else torch.zeros_like(ended_B)

        thoughts = think(adapters, stream, first_Bd, layer, goes_on)
        counts, cut_off = thoughts.real_BK.sum(dim=1).tolist(), (~ended_B).tolist()
    written = write(
        *(adapters, stream, len(questions), opening_of(tokenizer)),
        *(tokenizer.eos_token_id, settings.max_new_tokens),
    )
    seconds = (time.perf_counter() - begun) / len(questions)
    return [
        Answer(
            *(tokenizer.decode(one.token_ids), count, cut),
            *(len(one.token_ids), one.ended, seconds),
        )
        for one, count, cut in zip(written, counts, cut_off, strict=True)
    ]
