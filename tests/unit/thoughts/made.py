"""Moments to step from, made of seeds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.law import Moment
from rsp_rl.thoughts.noise import Noise

HIDDEN = 6


def made_embedding(vocabulary: int, hidden: int = HIDDEN, seed: int = 0) -> TableEmbedding:
    module = nn.Embedding(vocabulary, hidden)
    with torch.no_grad():
        module.weight.copy_(
            torch.randn(vocabulary, hidden, generator=torch.Generator().manual_seed(seed))
        )
    return TableEmbedding.of(module)


def made_logits(seed: int, count: int, vocabulary: int, size: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(count, vocabulary, generator=generator)


def made_moment(
    logits_NV: torch.Tensor,
    keys: Sequence[tuple[int, int]] | None = None,
    embedding: TableEmbedding | None = None,
) -> Moment:
    """From given logits, with noise of (seed, position) or of N seeds at position 4."""
    count, vocabulary = logits_NV.shape
    keys = keys or [(seed, 4) for seed in range(count)]
    noise = Noise(
        torch.tensor([seed for seed, _ in keys]), torch.tensor([position for _, position in keys])
    )
    return Moment(logits_NV, noise, embedding or made_embedding(vocabulary))
