"""Problems as rows of numbers: questions end in one column, chains and answers begin in one.

Shapes: B problems, Q tokens of the longest question, M of the longest chain, K thoughts of the one
that has most, A tokens of the longest answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.latent.ccot.positions import evenly_spaced
from rsp_rl.latent.ccot.settings import times
from rsp_rl.latent.problem_tokens import ProblemTokens


@dataclass(frozen=True)
class Rows:
    """Token ids, int64 [B, T], and which of them are no padding, bool [B, T]."""

    ids_BT: torch.Tensor
    real_BT: torch.Tensor

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return Rows(self.ids_BT.to(device), self.real_BT.to(device))


@dataclass(frozen=True)
class Batch:
    """Problems with their chains.

    Attributes:
        question: Padded on the left.
        chain: All tokens of all steps, padded on the right.
        answer: From its mark to the end-of-text token, padded on the right.
        thoughts_BK: int64, positions in the chain that thoughts stand for; 0 in the padding.
        real_BK: bool, no padding.
    """

    question: Rows
    chain: Rows
    answer: Rows
    thoughts_BK: torch.Tensor
    real_BK: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


def pad_left(rows: Sequence[Sequence[int]]) -> Rows:
    """Rows that end in one column."""
    flipped = pad_right([row[::-1] for row in rows])
    return Rows(flipped.ids_BT.flip(1), flipped.real_BT.flip(1))


def pad_right(rows: Sequence[Sequence[int]]) -> Rows:
    """Rows that begin in one column."""
    width = max(map(len, rows))
    ids_BT = torch.zeros((len(rows), width), dtype=torch.long)
    real_BT = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids_BT[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        real_BT[number, : len(row)] = True
    return Rows(ids_BT, real_BT)


def chain_of(tokens: ProblemTokens) -> tuple[int, ...]:
    """All tokens of all steps."""
    return tuple(token for step in tokens.steps for token in step)


def collate(problems: Sequence[ProblemTokens], ratio: float) -> Batch:
    """A batch.

    Args:
        problems: One at least, each with steps.
        ratio: r.
    """
    chains = [chain_of(problem) for problem in problems]
    thoughts = pad_right([evenly_spaced(len(chain), ratio) for chain in chains])
    return Batch(
        pad_left([problem.question for problem in problems]),
        pad_right(chains),
        pad_right([problem.answer for problem in problems]),
        thoughts.ids_BT,
        thoughts.real_BT,
    )


def check_problems(
    problems: Sequence[ProblemTokens],
    ratio: float,
    opening: int,
    context: int | None,
    place: str,
) -> None:
    """Make sure that problems can be trained on.

    Args:
        problems: In the order of their file.
        ratio: r.
        opening: First token of every answer; the decoder is given it and predicts the rest.
        context: Positions of the model, None where it has no limit.
        place: What an error calls the problems: their file.

    Raises:
        ConfigError: If one has no steps, or a question of no tokens, or an answer that begins
            otherwise, or does not fit into the model: with its chain, or with its thoughts.
    """
    for number, problem in enumerate(problems):
        where, length = f"{place}, problem {number}", len(chain_of(problem))
        if not problem.question:
            raise ConfigError(f"{where}: its question has no tokens; write one, or drop the row")
        if not length:
            raise ConfigError(
                f"{where} has no steps, whose hidden states thoughts are trained to be; write "
                "them, or drop the row"
            )
        if problem.answer[0] != opening:
            raise ConfigError(
                f"{where}: its answer begins with token {problem.answer[0]} and not with the "
                f"mark's, {opening}; begin the answer with a letter or a digit"
            )
        thoughts = times(ratio, length)
        needed = len(problem.question) + max(length, thoughts + len(problem.answer) - 1)
        if context is not None and needed > context:
            raise ConfigError(
                f"{where}: a question of {len(problem.question)} tokens with its chain of "
                f"{length}, or {thoughts} thoughts and an answer of {len(problem.answer)}, is "
                f"longer than the model's context of {context}; drop the row, or take a lower "
                "ratio or a model of a longer context"
            )
