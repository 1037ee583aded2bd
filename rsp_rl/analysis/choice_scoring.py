"""Log-probabilities of multiple-choice answers: what a model reads, and what it makes of it.

A choice is scored as what follows its question in one text: the sum over its tokens of ln p of each
after all before it, by the softmax over the whole vocabulary, in float32. The blank before a choice
is its own: some tokenizers have it in the choice's first token, and some only before words. Which
tokens are the choice's is told by the places of their text, so a tokenizer that splits question and
choice otherwise when they stand alone changes nothing.

Shape suffixes: `_BT` choices and tokens, `_BAV` choices, tokens of an answer at most, vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rsp_rl.basics.errors import PlacementError
from rsp_rl.data.choices import ChoiceQuestion
from rsp_rl.placement.prompt import cut
from rsp_rl.placement.text import beginning


@dataclass(frozen=True)
class Reading:
    """A question as a model reads it.

    Attributes:
        id: The question's.
        sequences: Tokens of question and choice, one a choice.
        answers: How many of them, at the end, are the choice's.
        characters: Of each choice.
        right: Place of the right one.
        truncated: Tokens of the question's start that had to go.
    """

    id: str
    sequences: tuple[tuple[int, ...], ...]
    answers: tuple[int, ...]
    characters: tuple[int, ...]
    right: int
    truncated: int

    @property
    def width(self) -> int:
        """Tokens of its longest sequence."""
        return max(map(len, self.sequences))


def reading_of(
    tokenizer: PreTrainedTokenizerBase, question: ChoiceQuestion, longest: int | None
) -> Reading | str:
    """A question in tokens.

    Args:
        tokenizer: The model's.
        question: The question.
        longest: Most tokens of question and choice; None for no limit.

    Returns:
        The reading, the start of its question left out where it is too long, for all choices alike;
        or why it cannot be read.
    """
    start = beginning(tokenizer, question.context)
    parts = []
    for choice in question.choices:
        try:
            parts.append(cut(tokenizer, f"{question.context} {choice}", len(question.context)))
        except PlacementError:
            return "a token has text of question and choice"
    if not all(before for before, _ in parts):
        return "a choice has nothing before it"
    over = 0
    if longest is not None:
        over = max(0, max(len(start) + len(b) + len(a) for b, a in parts) - longest)
    if over >= min(len(before) for before, _ in parts):
        return "a choice alone is too long"
    return Reading(
        question.id,
        tuple((*start, *before[over:], *after) for before, after in parts),
        tuple(len(after) for _, after in parts),
        tuple(map(len, question.choices)),
        question.right,
        over,
    )


def batches(readings: Sequence[Reading], tokens: int) -> Iterator[list[Reading]]:
    """Questions to be read at once, the longest first; the same for the same questions.

    Args:
        readings: All of them.
        tokens: Most tokens of a batch, padding included; a longer question is one of its own.
    """
    batch: list[Reading] = []
    for reading in sorted(readings, key=lambda reading: -reading.width):
        rows = sum(len(one.sequences) for one in (*batch, reading))
        if batch and rows * batch[0].width > tokens:
            yield batch
            batch = []
        batch.append(reading)
    if batch:
        yield batch


@torch.inference_mode()
def log_probs(network: PreTrainedModel, batch: Sequence[Reading]) -> list[list[float]]:
    """Log-probability of every choice, in nats, by question.

    Args:
        network: A causal language model.
        batch: Questions that are read at once.
    """
    rows = [
        (sequence, answer)
        for reading in batch
        for sequence, answer in zip(reading.sequences, reading.answers, strict=True)
    ]
    width = max(len(sequence) for sequence, _ in rows)
    ids_BT = torch.zeros(len(rows), width, dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for row, (sequence, _) in enumerate(rows):
        # Padding stands to the right, where nothing before it sees it.
        ids_BT[row, : len(sequence)] = torch.tensor(sequence)
        mask_BT[row, : len(sequence)] = 1
    # What predicts the answers' tokens stands one before them.
    first = min(len(sequence) - answer for sequence, answer in rows) - 1
    logits_BAV = network(
        ids_BT.to(network.device),
        attention_mask=mask_BT.to(network.device),
        logits_to_keep=width - first,
        use_cache=False,
    ).logits
    found = []
    for (sequence, answer), logits_AV in zip(rows, logits_BAV, strict=True):
        end = len(sequence) - 1 - first
        own_AV = logits_AV[end - answer : end].float().log_softmax(-1)
        ids_A = torch.tensor(sequence[-answer:], device=own_AV.device)
        found.append(float(own_AV.gather(1, ids_A[:, None]).double().sum()))
    values = iter(found)
    return [[next(values) for _ in reading.sequences] for reading in batch]
