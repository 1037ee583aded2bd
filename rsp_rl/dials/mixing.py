"""Which rollouts of a group get a soft prompt: pure functions of a rollout's place in the run."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

Mixing = Literal["none", "half"]
MIXINGS: tuple[str, ...] = get_args(Mixing)


def in_half(number: int) -> bool:
    """Whether a rollout is in the half of its group with soft prompts.

    Args:
        number: Of the rollout within its group, from 0; every other one is in.
    """
    return number % 2 == 0


def is_chosen(seed: int, probability: float) -> bool:
    """Whether a rollout gets a soft prompt, with a probability and independently of all others.

    Independent of its draw, too, which the same seed gives; and whoever is chosen with some
    probability is chosen with every larger one.

    Args:
        seed: The rollout's own seed, whatever it draws with.
        probability: In [0, 1].
    """
    digest = hashlib.blake2b(f"rsp_rl.mixing:{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < probability * 2**64
