"""The law of Random Soft Prompts: who draws what, from which distribution, with which seed.

Pure functions of their arguments: no process state, no global random state, no verl, no vLLM.
Whoever holds a rollout's `SoftPromptRecord` re-derives its soft prompt bit for bit.

Shape suffixes: `_LD` soft prompt rows [L, d], `_VD` embedding table [V, d].
"""

from __future__ import annotations

import hashlib
import math
import operator
from dataclasses import asdict, dataclass

import numpy as np
import torch

#: Rollout dtypes a record can name. A record travels as int64, hence codes and not names.
DTYPES: tuple[str, ...] = ("float32", "bfloat16", "float16")

#: Field of a training sample that carries its encoded record, int64 [7].
RECORD_FIELD = "rsp_record"

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
    """

    seed: int
    start: int
    length: int
    mean: float
    std: float
    dtype: str
    placeholder_id: int

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

    def to_tensor(self) -> torch.Tensor:
        """Encode as int64 [7], the floats bit for bit, so that it travels as a sample's tensor."""
        values = np.array(
            [0, self.start, self.length, 0, 0, DTYPES.index(self.dtype), self.placeholder_id],
            dtype=np.int64,
        )
        values[0] = np.uint64(self.seed).astype(np.int64)
        values[3:5] = np.array([self.mean, self.std], dtype=np.float64).view(np.int64)
        return torch.from_numpy(values)

    @classmethod
    def from_tensor(cls, encoded: torch.Tensor) -> SoftPromptRecord:
        """Decode what `to_tensor` made.

        Args:
            encoded: int64 [7], on any device.

        Raises:
            ValueError: If the tensor is no encoded record.
        """
        if encoded.dtype != torch.int64 or encoded.shape != (7,):
            raise ValueError(
                f"a soft prompt record is int64 [7], got {encoded.dtype} {list(encoded.shape)}"
            )
        values = encoded.detach().cpu().numpy()
        mean, std = values[3:5].view(np.float64)
        if not 0 <= values[5] < len(DTYPES):
            raise ValueError(f"soft prompt record names dtype code {values[5]}; it is corrupted")
        return cls(
            seed=int(values[0:1].view(np.uint64)[0]),
            start=int(values[1]),
            length=int(values[2]),
            mean=float(mean),
            std=float(std),
            dtype=DTYPES[int(values[5])],
            placeholder_id=int(values[6]),
        )

    def to_dict(self) -> dict[str, int | float | str]:
        """Plain types, for JSON and for vLLM's `SamplingParams.extra_args`."""
        return asdict(self)

    def draw(self, hidden_size: int) -> torch.Tensor:
        """H of this rollout, [L, d], in the rollout's dtype."""
        rows = draw_soft_prompt(self.seed, self.length, hidden_size, self.mean, self.std)
        return rows.to(getattr(torch, self.dtype))


def draw_soft_prompt(
    seed: int, length: int, hidden_size: int, mean: float, std: float
) -> torch.Tensor:
    """Draw H, rows i.i.d. N(mean 1_d, std^2 I_d) (paper, Eq. 1).

    A pure function of its arguments, bit-identical on every machine: a counter-based generator
    keyed by the seed, whose stream is filled row by row, so that the first rows of a longer
    soft prompt are the rows of a shorter one. Philox with numpy's ziggurat, not Box-Muller over
    raw bits: numpy's vectorised log and cos differ in the last place between processors.

    Args:
        seed: Rollout seed, an unsigned 64-bit integer.
        length: L, at least 0.
        hidden_size: d, at least 1.
        mean: mu_E.
        std: sigma_E times the scale dial, at least 0.

    Returns:
        float32 [L, d] on the CPU.
    """
    if length < 0 or hidden_size < 1 or not std >= 0:
        raise ValueError(f"cannot draw length={length}, hidden_size={hidden_size}, std={std}")
    generator = np.random.Generator(np.random.Philox(key=seed))
    noise_LD = generator.standard_normal((length, hidden_size))
    return torch.from_numpy((mean + std * noise_LD).astype(np.float32))


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
