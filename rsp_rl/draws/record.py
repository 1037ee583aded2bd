"""The record of a rollout's soft prompt: who draws what, with which seed, where it goes.

Whoever holds a rollout's `SoftPromptRecord` re-derives its soft prompt bit for bit, in any process:
no global random state, no verl, no vLLM. The seed comes from `rsp_rl.draws.seeds`, distributions
from `rsp_rl.draws.laws`.
"""

from __future__ import annotations

import math
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
RECORD_SIZE = 9

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

    def to_tensor(self) -> torch.Tensor:
        """Encode as int64 [RECORD_SIZE], the floats bit for bit: it travels as a tensor."""
        import torch

        values = np.zeros(RECORD_SIZE, dtype=np.int64)
        values[[0, 8]] = np.array([self.seed, self.table], dtype=np.uint64).view(np.int64)
        values[1:3] = self.start, self.length
        values[3:5] = np.array([self.mean, self.std], dtype=np.float64).view(np.int64)
        values[5:8] = DTYPES.index(self.dtype), self.placeholder_id, LAWS.code(self.law)
        return torch.from_numpy(values)

    @classmethod
    def from_tensor(cls, encoded: torch.Tensor) -> SoftPromptRecord:
        """Decode what `to_tensor` made.

        Args:
            encoded: int64 [RECORD_SIZE], on any device.

        Raises:
            ValueError: If the tensor is no encoded record.
        """
        import torch

        if encoded.dtype != torch.int64 or encoded.shape != (RECORD_SIZE,):
            raise ValueError(
                f"a soft prompt record is int64 [{RECORD_SIZE}], got {encoded.dtype} "
                f"{list(encoded.shape)}"
            )
        values = encoded.detach().cpu().numpy()
        seed, table = values[[0, 8]].view(np.uint64)
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
        )

    def to_dict(self) -> dict[str, int | float | str]:
        """Plain types, for JSON and for vLLM's `SamplingParams.extra_args`."""
        return asdict(self)

    def draw(self, hidden_size: int) -> torch.Tensor:
        """H of this rollout, [L, d], in the rollout's dtype.

        Raises:
            EmbeddingTableError: If the law draws from the pretrained table and that is not there.
            ConfigError: If the law's rows are none.
        """
        import torch

        rows = checked(LAWS[self.law], self, hidden_size)
        return rows.to(getattr(torch, self.dtype))
