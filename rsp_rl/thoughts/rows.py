"""What a law leaves at a position: enough to make the input again, and to score it.

Shape suffixes: `_N` positions, `_NK` the same with the law's slots, `_ND` with the hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch


class Kind(IntEnum):
    """What stands at a position; in every record, never guessed from ids or values."""

    #: The embedding of the emitted token, which a law or the engine's sampler chose.
    TOKEN = 0
    #: A mixture of the embeddings of a few tokens.
    MIX = 1
    #: A mixture of tokens' embeddings, of all or of one alone, plus noise.
    MIX_NOISE = 2
    #: A given vector, such as a random soft prompt's.
    DENSE = 3
    #: The hidden state of the position before.
    HIDDEN = 4
    #: The embedding of a token that nobody chose: an end that was forced, a prefilled phrase.
    FORCED = 5
    #: The embedding of the token that ended the thoughts of a law whose tokens are no draws: no
    #: log-prob is its.
    END = 6

    @property
    def is_token(self) -> bool:
        """Whether the input is the emitted token's own embedding."""
        return self in (Kind.TOKEN, Kind.FORCED, Kind.END)

    @property
    def is_chosen(self) -> bool:
        """Whether a draw made it, so that it has a part in a loss."""
        return self not in (Kind.FORCED, Kind.END)


@dataclass(frozen=True)
class Rows:
    """Records of N positions.

    Attributes:
        kind_N: `Kind`s, uint8.
        ids_NK: Tokens that count at a position, int32; the first is the one that was emitted.
        values_NK: What the law knows of each, float32: weights, or what they are made of.
        dense_ND: The inputs themselves, of laws that need them; None of all others.
    """

    kind_N: torch.Tensor
    ids_NK: torch.Tensor
    values_NK: torch.Tensor
    dense_ND: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.kind_N)

    def __getitem__(self, at: slice | torch.Tensor | list[int]) -> Rows:
        dense = None if self.dense_ND is None else self.dense_ND[at]
        return Rows(self.kind_N[at], self.ids_NK[at], self.values_NK[at], dense)

    @property
    def thought_N(self) -> torch.Tensor:
        """Where the input is no token's own embedding, bool."""
        tokens = [kind for kind in Kind if kind.is_token]
        return ~torch.isin(self.kind_N, self.kind_N.new_tensor(tokens))

    @property
    def emitted_N(self) -> torch.Tensor:
        """The emitted tokens, int32."""
        return self.ids_NK[:, 0]

    def to(self, device: torch.device | str) -> Rows:
        """The same on a device."""
        dense = None if self.dense_ND is None else self.dense_ND.to(device)
        return Rows(
            self.kind_N.to(device), self.ids_NK.to(device), self.values_NK.to(device), dense
        )

    @classmethod
    def of_kind(
        cls,
        kind: Kind,
        ids_NK: torch.Tensor,
        values_NK: torch.Tensor,
        dense_ND: torch.Tensor | None = None,
    ) -> Rows:
        """All of one kind."""
        kind_N = torch.full((len(ids_NK),), kind, dtype=torch.uint8, device=ids_NK.device)
        return cls(kind_N, ids_NK.int(), values_NK.float(), dense_ND)

    @classmethod
    def tokens(cls, kind: Kind, ids: Sequence[int] | torch.Tensor, like: Rows) -> Rows:
        """Single tokens, as rows of the same width as others: the remaining slots weigh nothing."""
        ids_N = torch.as_tensor(ids, dtype=torch.int32, device=like.ids_NK.device)
        slots = like.ids_NK.shape[1]
        values_NK = torch.zeros(len(ids_N), slots, device=ids_N.device)
        values_NK[:, 0] = 1
        dense = like.dense_ND
        return cls.of_kind(
            kind,
            ids_N[:, None].expand(-1, slots),
            values_NK,
            None if dense is None else dense.new_zeros(len(ids_N), dense.shape[1]),
        )


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of one law, one part after the other.

    Raises:
        ValueError: If there is none, or they differ in width.
    """
    dense = [part.dense_ND for part in parts if part.dense_ND is not None]
    widths = {part.ids_NK.shape[1] for part in parts}
    if len(widths) != 1 or len(dense) not in (0, len(parts)):
        raise ValueError(f"rows of {sorted(widths)} slots, {len(dense)} of {len(parts)} dense")
    return Rows(
        torch.cat([part.kind_N for part in parts]),
        torch.cat([part.ids_NK for part in parts]),
        torch.cat([part.values_NK for part in parts]),
        torch.cat(dense) if dense else None,
    )
