"""The record of a rollout's soft prompt: who draws what, with which seed, where it goes.

Whoever holds a rollout's `SoftPromptRecord` re-derives its soft prompt bit for bit, in any process:
no global random state, no verl, no vLLM. The seed comes from `rsp_rl.draws.seeds`, distributions
from `rsp_rl.draws.laws`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from rsp_rl.draws.laws import LAWS
from rsp_rl.draws.own_laws import checked

if TYPE_CHECKING:  # torch is imported where a tensor is made: settings need a record's names alone
    import torch

#: Rollout dtypes a record can name. A record travels as int64, hence codes and not names.
DTYPES: tuple[str, ...] = ("float32", "bfloat16", "float16")

#: Field of a training sample that carries its encoded record, int64 [RECORD_SIZE].
RECORD_FIELD = "rsp_record"

#: Numbers of an encoded record.
RECORD_SIZE = 10

#: Of those of 0.1, whose rows all stand at positions of their own.
_SIZE_OF_0_1 = 9

#: Key of the record in `SamplingParams.extra_args`, vLLM's place for per-request extensions.
EXTRA_ARG = "rsp_rl"

_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True)
class SoftPromptRecord:
    """All that is needed to re-derive one rollout's soft prompt H and to put it in place.

    Attributes:
        seed: Rollout seed, an unsigned 64-bit integer (see `rsp_rl.draws.seeds`).
        start: Index in the unpadded token sequence of the first of the L soft prompt positions.
        length: L, the number of soft prompt vectors; 0 for a rollout without one.
        mean: mu_E of the pretrained embedding table (paper, Eq. 1).
        std: Standard deviation of the draw: sigma_E times the scale dial (paper, Eq. 1).
        dtype: Rollout dtype that H is rounded to on both sides, one of `DTYPES`.
        placeholder_id: Token id that stands at the L positions wherever tokens are needed.
        law: What H is drawn from, a key of `rsp_rl.draws.laws.LAWS`.
        table: Digest of the pretrained table, an unsigned 64-bit integer, for a law that draws from
            it; else 0.
        added_to: `tokens_digest` of the L tokens to whose embeddings the rows are added; 0 for rows
            that stand at the L positions in the place of a token.
    """

    seed: int
    start: int
    length: int
    mean: float
    std: float
    dtype: str
    placeholder_id: int
    law: str = "gaussian"
    table: int = 0
    added_to: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= _MASK_64:
            raise ValueError(f"rollout seed {self.seed} is not an unsigned 64-bit integer")
        if self.start < 0 or self.length < 0:
            raise ValueError(f"negative start ({self.start}) or length ({self.length})")
        if not math.isfinite(self.mean) or not 0 <= self.std < math.inf:
            raise ValueError(f"no normal distribution has mean {self.mean} and std {self.std}")
        if self.dtype not in DTYPES:
            raise ValueError(f"unknown rollout dtype {self.dtype!r}; use one of {DTYPES}")
        if self.placeholder_id < 0:
            raise ValueError(f"placeholder token id {self.placeholder_id} is negative")
        if self.law not in LAWS:
            raise ValueError(f"unknown law {self.law!r}; use one of {tuple(LAWS)}")
        if not 0 <= self.table <= _MASK_64:
            raise ValueError(f"table digest {self.table} is not an unsigned 64-bit integer")
        if not 0 <= self.added_to <= _MASK_64:
            raise ValueError(f"tokens' digest {self.added_to} is not an unsigned 64-bit integer")
        if LAWS[self.law].added != bool(self.added_to):
            adds = "are added to" if LAWS[self.law].added else "stand in the place of"
            raise ValueError(
                f"rows of the law {self.law} {adds} embeddings, and the record says added_to="
                f"{self.added_to}"
            )

    def to_tensor(self) -> torch.Tensor:
        """Encode as int64 [RECORD_SIZE], the floats bit for bit: it travels as a tensor."""
        import torch

        values = np.zeros(RECORD_SIZE, dtype=np.int64)
        unsigned = np.array([self.seed, self.table, self.added_to], dtype=np.uint64)
        values[[0, 8, 9]] = unsigned.view(np.int64)
        values[1:3] = self.start, self.length
        values[3:5] = np.array([self.mean, self.std], dtype=np.float64).view(np.int64)
        values[5:8] = DTYPES.index(self.dtype), self.placeholder_id, LAWS.code(self.law)
        return torch.from_numpy(values)

    @classmethod
    def from_tensor(cls, encoded: torch.Tensor) -> SoftPromptRecord:
        """Decode what `to_tensor` made.

        Args:
            encoded: int64 [RECORD_SIZE], on any device; one of 0.1 has a number less.

        Raises:
            ValueError: If the tensor is no encoded record.
        """
        import torch

        if encoded.dtype != torch.int64 or encoded.shape not in ((RECORD_SIZE,), (_SIZE_OF_0_1,)):
            raise ValueError(
                f"a soft prompt record is int64 [{RECORD_SIZE}], got {encoded.dtype} "
                f"{list(encoded.shape)}"
            )
        values = encoded.detach().cpu().numpy()
        seed, table = values[[0, 8]].view(np.uint64)
        (added_to,) = values[9:].view(np.uint64) if len(values) == RECORD_SIZE else (0,)
        mean, std = values[3:5].view(np.float64)
        dtype, placeholder, code = (int(value) for value in values[5:8])
        if not 0 <= dtype < len(DTYPES):
            raise ValueError(f"soft prompt record names dtype code {dtype}; it is corrupted")
        if (law := LAWS.of_code(code)) is None:
            raise ValueError(
                f"soft prompt record names law code {code}; it is corrupted, or the package that "
                "brings the law is not installed where this process runs"
            )
        return cls(
            seed=int(seed),
            start=int(values[1]),
            length=int(values[2]),
            mean=float(mean),
            std=float(std),
            dtype=DTYPES[dtype],
            placeholder_id=placeholder,
            law=law,
            table=int(table),
            added_to=int(added_to),
        )

    def to_dict(self) -> dict[str, int | float | str]:
        """Plain types, for JSON and for vLLM's `SamplingParams.extra_args`."""
        return asdict(self)

    def stands_at(self, span: Sequence[int]) -> bool:
        """Whether a sequence's tokens at the record's positions are those that it was made for.

        Args:
            span: Tokens from `start` on, as many as there are of `length`.
        """
        if len(span) != self.length:
            return False
        if self.added_to and self.length:
            return tokens_digest(span) == self.added_to
        return all(token == self.placeholder_id for token in span)

    def draw(self, hidden_size: int) -> torch.Tensor:
        """H of this rollout, [L, d], in the rollout's dtype.

        Raises:
            EmbeddingTableError: If the law draws from the pretrained table and that is not there.
            ConfigError: If the law's rows are none.
        """
        import torch

        rows = checked(LAWS[self.law], self, hidden_size)
        return rows.to(getattr(torch, self.dtype))


def tokens_digest(token_ids: Sequence[int]) -> int:
    """What tells a span of tokens from others, an unsigned 64-bit integer and never 0."""
    content = np.asarray(token_ids, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1
