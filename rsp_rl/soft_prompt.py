"""Who draws what, with which seed: the record of a rollout's soft prompt, and rollout seeds.

Pure functions of their arguments: no process state, no global random state, no verl, no vLLM.
Whoever holds a rollout's `SoftPromptRecord` re-derives its soft prompt bit for bit. The
distributions are in `rsp_rl.laws`.
"""

from __future__ import annotations

import hashlib
import math
import operator
from dataclasses import asdict, dataclass

import numpy as np
import torch

from rsp_rl.laws import LAWS

#: Rollout dtypes a record can name. A record travels as int64, hence codes and not names.
DTYPES: tuple[str, ...] = ("float32", "bfloat16", "float16")

#: Field of a training sample that carries its encoded record, int64 [RECORD_SIZE].
RECORD_FIELD = "rsp_record"

#: Numbers of an encoded record.
RECORD_SIZE = 9

#: Key of the record in `SamplingParams.extra_args`, vLLM's place for per-request extensions.
EXTRA_ARG = "rsp_rl"

# A rollout's place in a run, packed into 64 bits: [validation | step | prompt index | rollout].
_VALIDATION_BITS, _STEP_BITS, _INDEX_BITS, _ROLLOUT_BITS = 1, 19, 28, 16
_MASK_64 = (1 << 64) - 1


@dataclass(frozen=True)
class SoftPromptRecord:
    """All that is needed to re-derive one rollout's soft prompt H and to put it in place.

    Attributes:
        seed: Rollout seed, an unsigned 64-bit integer (see `rollout_seed`).
        start: Index in the unpadded token sequence of the first of the L soft prompt positions.
        length: L, the number of soft prompt vectors; 0 for a rollout without one.
        mean: mu_E of the pretrained embedding table (paper, Eq. 1).
        std: Standard deviation of the draw: sigma_E times the scale dial (paper, Eq. 1).
        dtype: Rollout dtype that H is rounded to on both sides, one of `DTYPES`.
        placeholder_id: Token id that stands at the L positions wherever tokens are needed.
        law: What H is drawn from, a key of `rsp_rl.laws.LAWS`.
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
        values = np.zeros(RECORD_SIZE, dtype=np.int64)
        values[[0, 8]] = np.array([self.seed, self.table], dtype=np.uint64).view(np.int64)
        values[1:3] = self.start, self.length
        values[3:5] = np.array([self.mean, self.std], dtype=np.float64).view(np.int64)
        values[5:8] = DTYPES.index(self.dtype), self.placeholder_id, list(LAWS).index(self.law)
        return torch.from_numpy(values)

    @classmethod
    def from_tensor(cls, encoded: torch.Tensor) -> SoftPromptRecord:
        """Decode what `to_tensor` made.

        Args:
            encoded: int64 [RECORD_SIZE], on any device.

        Raises:
            ValueError: If the tensor is no encoded record.
        """
        if encoded.dtype != torch.int64 or encoded.shape != (RECORD_SIZE,):
            raise ValueError(
                f"a soft prompt record is int64 [{RECORD_SIZE}], got {encoded.dtype} "
                f"{list(encoded.shape)}"
            )
        values = encoded.detach().cpu().numpy()
        seed, table = values[[0, 8]].view(np.uint64)
        mean, std = values[3:5].view(np.float64)
        dtype, placeholder, law = (int(value) for value in values[5:8])
        if not 0 <= dtype < len(DTYPES):
            raise ValueError(f"soft prompt record names dtype code {dtype}; it is corrupted")
        if not 0 <= law < len(LAWS):
            raise ValueError(f"soft prompt record names law code {law}; it is corrupted")
        return cls(
            seed=int(seed),
            start=int(values[1]),
            length=int(values[2]),
            mean=float(mean),
            std=float(std),
            dtype=DTYPES[dtype],
            placeholder_id=placeholder,
            law=list(LAWS)[law],
            table=int(table),
        )

    def to_dict(self) -> dict[str, int | float | str]:
        """Plain types, for JSON and for vLLM's `SamplingParams.extra_args`."""
        return asdict(self)

    def draw(self, hidden_size: int) -> torch.Tensor:
        """H of this rollout, [L, d], in the rollout's dtype.

        Raises:
            EmbeddingTableError: If the law draws from the pretrained table and that is not there.
        """
        rows = LAWS[self.law].draw(self, hidden_size)
        return rows.to(getattr(torch, self.dtype))


def rollout_seed(
    run_seed: int, step: int, prompt_index: int, rollout: int, *, validation: bool = False
) -> int:
    """Seed of one rollout, a pure function of its place in the run.

    The place is packed into 64 bits and sent through a bijection of the 64-bit integers that the
    run seed selects. Two rollouts of a run therefore *cannot* share a seed, on whatever rank they
    run; and a resumed run, which counts the same steps, prompts and rollouts, derives the same.

    Args:
        run_seed: `rsp.seed`, any integer.
        step: Global step, counted from 1 (0 for validation draws), below 2^19.
        prompt_index: The prompt's dataset index as an integer below 2^28 (see `prompt_index_of`).
        rollout: Number of the rollout among those of this prompt in this step, below 2^16.
        validation: Whether the rollout is a validation one; these never meet the training draws.

    Raises:
        ValueError: If a coordinate does not fit its bits.
    """
    for name, value, bits in (
        ("step", step, _STEP_BITS),
        ("prompt_index", prompt_index, _INDEX_BITS),
        ("rollout", rollout, _ROLLOUT_BITS),
    ):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name}={value} is outside [0, 2^{bits})")
    place = int(validation)
    for value, bits in (
        (step, _STEP_BITS),
        (prompt_index, _INDEX_BITS),
        (rollout, _ROLLOUT_BITS),
    ):
        place = place << bits | operator.index(value)  # numpy's integers would overflow
    digest = hashlib.blake2b(f"rsp_rl.run_seed:{run_seed}".encode(), digest_size=16).digest()
    key_0, key_1 = (int.from_bytes(digest[i : i + 8], "little") for i in (0, 8))
    return _mix(_mix(place ^ key_0) ^ key_1)


def _mix(x: int) -> int:
    """SplitMix64's finaliser (Steele et al. 2014): a bijection of the 64-bit integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK_64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK_64
    return x ^ x >> 31


def prompt_index_of(index: object) -> int:
    """A dataset's index as the integer that `rollout_seed` takes.

    Integers below 2^28 stand for themselves. Anything else (DAPO-Math's are UUID strings) is
    hashed to 28 bits, stably across processes; the caller counts repeats within a step, so that
    a collision, like a repeated index, moves on to fresh rollout numbers instead of sharing draws.
    """
    is_integer = isinstance(index, int | np.integer) and not isinstance(index, bool)
    if is_integer and 0 <= int(index) < 1 << _INDEX_BITS:
        return int(index)
    digest = hashlib.blake2b(str(index).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & ((1 << _INDEX_BITS) - 1)
