"""The sequence that a problem is trained on at a stage, and the batch of several.

question, [begin], thoughts or pauses, [end], the steps that are left, answer. The loss begins with
the first token after all of these that is a step's or the answer's: what predicts it is the end
marker, or without markers what stands last (arXiv 2412.06769, section 3).

Shapes: B problems, T columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.methods import AT_ONCE, BY_STAGE, BY_TOKEN, NOTHING, THOUGHTS, Method
from rsp_rl.latent.problem_tokens import ProblemTokens

IGNORED = -100
"""Label of a token without loss, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True)
class Markers:
    """Ids of the tokens that a method adds to a vocabulary.

    Attributes:
        begin: Before the first thought.
        end: After the last one.
        latent: Holds a thought's place; a pause's embedding is its own.
    """

    begin: int
    end: int
    latent: int


@dataclass(frozen=True)
class Row:
    """One row before padding.

    Attributes:
        token_ids: All tokens; at a thought the latent token, whose embedding is not used.
        first: Index of the first thought or pause, or of what would follow it.
        fillers: How many thoughts or pauses.
        first_label: Index of the first token with a loss.
        thoughts: How many of the fillers are hidden states.
        stood_for: The steps that these stand for, c thoughts each, in order.
    """

    token_ids: tuple[int, ...]
    first: int
    fillers: int
    first_label: int
    thoughts: int
    stood_for: tuple[tuple[int, ...], ...] = ()


def prefix(
    question: Sequence[int], method: Method, fillers: int, markers: Markers
) -> tuple[list[int], int]:
    """What stands before the first token with a loss, and the index of the first filler."""
    begin, end = ([markers.begin], [markers.end]) if method.markers else ([], [])
    tokens = [*question, *begin]
    return [*tokens, *[markers.latent] * fillers, *end], len(tokens)


def lay_out(
    tokens: ProblemTokens,
    method: Method,
    markers: Markers,
    *,
    stage: int,
    max_stage: int,
    thoughts_per_step: int,
    pad_thoughts: bool = True,
    removed_tokens: int = 0,
) -> Row:
    """The sequence of a problem at a stage.

    Args:
        tokens: The problem's.
        method: What stands in the place of which steps.
        markers: Ids of the added tokens.
        stage: How many steps are taken away; above `max_stage` all are.
        max_stage: The most steps that thoughts stand for.
        thoughts_per_step: c.
        pad_thoughts: Whether a problem of fewer steps has the stage's number of thoughts all the
            same.
        removed_tokens: How many tokens of the steps iCoT takes away.
    """
    if method.removal == BY_TOKEN:
        rest = [token for step in tokens.steps for token in step][removed_tokens:]
    elif method.removal in (BY_STAGE, AT_ONCE):
        kept = tokens.steps[stage:] if stage <= max_stage else ()
        rest = list(chain.from_iterable(kept))
    else:
        rest = list(chain.from_iterable(tokens.steps))
    steps = min(stage, max_stage)
    if not pad_thoughts:
        steps = min(steps, len(tokens.steps))
    fillers = 0 if method.filler == NOTHING else steps * thoughts_per_step
    before, first = prefix(tokens.question, method, fillers, markers)
    thoughts = fillers if method.filler == THOUGHTS else 0
    stood_for = tokens.steps[:steps] if thoughts else ()
    token_ids = (*before, *rest, *tokens.answer)
    return Row(token_ids, first, fillers, len(before), thoughts, stood_for)


@dataclass(frozen=True)
class Batch:
    """Rows padded so that all first thoughts are in one column.

    Attributes:
        token_ids_BT: int64; the padding's is any.
        mask_BT: int64, 1 at tokens.
        positions_BT: int64, counts a row's tokens; 0 in the padding before them.
        labels_BT: int64, aligned with the tokens, `IGNORED` without a loss.
        thoughts_BT: Whether the input is the hidden state before.
        first: Column of the first thoughts.
        passes: The most thoughts of a row.
    """

    token_ids_BT: torch.Tensor
    mask_BT: torch.Tensor
    positions_BT: torch.Tensor
    labels_BT: torch.Tensor
    thoughts_BT: torch.Tensor
    first: int
    passes: int

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        moved = (
            getattr(self, name).to(device)
            for name in ("token_ids_BT", "mask_BT", "positions_BT", "labels_BT", "thoughts_BT")
        )
        return Batch(*moved, self.first, self.passes)


def collate(rows: Sequence[Row], pad: int) -> Batch:
    """Pads rows on the left to their first thoughts, then on the right.

    Args:
        rows: At least one.
        pad: Id that fills the padding.
    """
    first = max(row.first for row in rows)
    width = max(first - row.first + len(row.token_ids) for row in rows)
    shape = (len(rows), width)
    token_ids_BT = torch.full(shape, pad, dtype=torch.long)
    mask_BT, positions_BT = (
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.long),
    )
    labels_BT = torch.full(shape, IGNORED, dtype=torch.long)
    thoughts_BT = torch.zeros(shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        start, length = first - row.first, len(row.token_ids)
        ids = torch.tensor(row.token_ids)
        token_ids_BT[number, start : start + length] = ids
        mask_BT[number, start : start + length] = 1
        positions_BT[number, start : start + length] = torch.arange(length)
        labels_BT[number, start + row.first_label : start + length] = ids[row.first_label :]
        thoughts_BT[number, first : first + row.thoughts] = True
    passes = max(row.thoughts for row in rows)
    return Batch(token_ids_BT, mask_BT, positions_BT, labels_BT, thoughts_BT, first, passes)


def check_lengths(rows: Sequence[Row], context: int | None, place: str) -> None:
    """Make sure that a model's context holds sequences.

    Args:
        rows: In the order of the problems.
        context: Positions of the model, or None where it has no limit.
        place: What the error calls the problems: their file.

    Raises:
        ConfigError: Naming the longest.
    """
    longest = max(range(len(rows)), key=lambda number: len(rows[number].token_ids))
    length = len(rows[longest].token_ids)
    if context is not None and length > context:
        raise ConfigError(
            f"{place}, problem {longest}: its sequence has {length} tokens with "
            f"{rows[longest].fillers} thoughts or pauses, the model's context {context}; take "
            "fewer thoughts, leave the problem out, or take a model of a longer context"
        )
