"""Rollout seeds: pure functions of a rollout's place in the run."""

from __future__ import annotations

import hashlib
import operator

import numpy as np

# A rollout's place in a run, packed into 64 bits: [validation | step | prompt index | rollout].
_VALIDATION_BITS, _STEP_BITS, _INDEX_BITS, _ROLLOUT_BITS = 1, 19, 28, 16
_MASK_64 = (1 << 64) - 1


#: What a rollout may have seeds for: its soft prompt and its sampling, or its thoughts.
STREAMS = ("run_seed", "thought_seed")


def rollout_seed(
    run_seed: int,
    step: int,
    prompt_index: int,
    rollout: int,
    *,
    validation: bool = False,
    stream: str = "run_seed",
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
        stream: One of `STREAMS`, another bijection each.

    Raises:
        ValueError: If a coordinate does not fit its bits, or there is no such stream.
    """
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r} of seeds; use one of {STREAMS}")
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
    digest = hashlib.blake2b(f"rsp_rl.{stream}:{run_seed}".encode(), digest_size=16).digest()
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
