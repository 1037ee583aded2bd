"""Counter-based noise: a pure function of (seed, absolute position, slot, index).

No generator has a state, so that a request's noise is the same in whatever batch it is, after a
preemption, and in a replay. Noise for a token is keyed by the token's id: logits that differ by
rounding reorder candidates without dealing their noise anew.

Bits are SplitMix64's (Steele et al. 2014), made of integers alone: equal on every device. Seed,
position and slot are mixed on the host, where N numbers take no time; a device mixes in what is
drawn for. Each of its operations is a launch, whatever its size.

Shape suffixes: `_N` positions, `_NS` the same with slots, `_NK` with indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from rsp_rl.thoughts.host import sent

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

#: Rejections of one gamma draw in a row are less likely than 0.05 each: more means a broken device.
_MOST_TRIES = 64


@dataclass(frozen=True)
class Noise:
    """The noise of N positions.

    Attributes:
        seeds_N: Of their requests, int64, on the host.
        positions_N: Absolute positions, prompt and soft prompt included, on the host.
    """

    seeds_N: torch.Tensor
    positions_N: torch.Tensor

    @classmethod
    def of(cls, seeds: Sequence[int], positions: Sequence[int]) -> Noise:
        """Of N positions.

        Args:
            seeds: Unsigned 64-bit integers; int64 has the same bits.
            positions: Absolute ones.
        """
        same_bits = [seed - (1 << 64) if seed >= 1 << 63 else seed for seed in seeds]
        return cls(torch.tensor(same_bits), torch.tensor(positions))

    def at(self, rows: torch.Tensor | slice) -> Noise:
        """Of some of the positions."""
        rows = rows.cpu() if isinstance(rows, torch.Tensor) else rows
        return Noise(self.seeds_N[rows], self.positions_N[rows])

    def bits(self, slot: int | Sequence[int], index_NK: torch.Tensor) -> torch.Tensor:
        """64 bits each, int64 [N, K], where the indices are.

        Args:
            slot: Which of a position's draws; of several the result is [N, S, K].
            index_NK: What is drawn for, such as a token's id; [K] for all positions alike.
        """
        several = not isinstance(slot, int)
        slots_S = np.array(slot if several else [slot], dtype=np.uint64) + np.uint64(1)
        key_NS = _mix(self._key_N[:, None] ^ (slots_S * _MULTIPLIERS[0]))
        key_NS1 = sent(torch.from_numpy(key_NS.view(np.int64))[:, :, None], index_NK.device)
        index_NK = (index_NK.long() + 1) * _signed(_GOLDEN)
        if not several:
            return _mixed(key_NS1[:, 0] + index_NK)
        return _mixed(key_NS1 + (index_NK if index_NK.ndim == 1 else index_NK[:, None]))

    @cached_property
    def _key_N(self) -> np.ndarray:
        both = self.seeds_N.long(), self.positions_N.long()
        seeds_N, positions_N = (x.numpy().view(np.uint64) for x in both)
        return _mix(_mix(seeds_N + _GOLDEN) ^ (positions_N * _GOLDEN))

    def uniform(self, slot: int | Sequence[int], index_NK: torch.Tensor) -> torch.Tensor:
        """Uniform in the open interval (0, 1), float64 [N, K] or [N, S, K], of 32 bits."""
        return _unit(_shift(self.bits(slot, index_NK), 32))

    def gumbel(self, slot: int | Sequence[int], index_NK: torch.Tensor) -> torch.Tensor:
        """Gumbel(0, 1), float32 [N, K] or [N, S, K]; at most 22.9."""
        return -torch.log(-torch.log(self.uniform(slot, index_NK))).float()

    def normal(self, slot: int, index_NK: torch.Tensor) -> torch.Tensor:
        """N(0, 1), float32 [N, K] (Box and Muller 1958)."""
        bits_NK = self.bits(slot, index_NK)
        radius_NK = torch.sqrt(-2 * torch.log(_unit(_shift(bits_NK, 32))))
        angle_NK = 2 * math.pi * _unit(bits_NK & 0xFFFFFFFF)
        return (radius_NK * torch.cos(angle_NK)).float()

    def log_gamma(self, slot: int, index_NK: torch.Tensor, shape_NK: torch.Tensor) -> torch.Tensor:
        """Logarithms of Gamma(shape, 1), float32 [N, K] (Marsaglia and Tsang 2000).

        As logarithms, because draws of small shapes are smaller than the smallest float.

        Args:
            slot: Which of a position's draws.
            index_NK: What is drawn for.
            shape_NK: Above 0.

        Raises:
            RuntimeError: If no try is accepted, as of a shape that is no number.
        """
        shape_NK = shape_NK.double()
        # Gamma(a) is Gamma(a + 1) times U^(1/a).
        d_NK = shape_NK + 1 - 1 / 3
        c_NK = 1 / torch.sqrt(9 * d_NK)
        log_NK = torch.full_like(d_NK, torch.nan)
        for attempt in range(_MOST_TRIES):
            tried = slot + 2 * attempt + 1
            normal_NK = self.normal(tried, index_NK).double()
            v_NK = (1 + c_NK * normal_NK) ** 3
            log_v_NK = torch.log(v_NK.clamp_min(torch.finfo(v_NK.dtype).tiny))
            bound_NK = 0.5 * normal_NK**2 + d_NK * (1 - v_NK + log_v_NK)
            accepted_NK = (v_NK > 0) & (torch.log(self.uniform(tried + 1, index_NK)) < bound_NK)
            log_NK = torch.where(log_NK.isnan() & accepted_NK, torch.log(d_NK) + log_v_NK, log_NK)
            if not bool(log_NK.isnan().any()):
                boost_NK = torch.log(self.uniform(slot, index_NK)) / shape_NK
                return (log_NK + boost_NK).float()
        raise RuntimeError(f"no gamma draw was accepted in {_MOST_TRIES} tries")


def _unit(bits: torch.Tensor) -> torch.Tensor:
    return (bits.double() + 0.5) / (1 << 32)


def _shift(bits: torch.Tensor, by: int) -> torch.Tensor:
    """To the right, zeros from the left: torch has signed integers only."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _signed(number: np.uint64) -> int:
    """The 64-bit integer of the same bits, as torch takes it."""
    return int(number.view(np.int64))


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
    x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
    return x ^ (x >> np.uint64(31))


def _mixed(x: torch.Tensor) -> torch.Tensor:
    """`_mix` on any device."""
    x = (x ^ _shift(x, 30)) * _signed(_MULTIPLIERS[0])
    x = (x ^ _shift(x, 27)) * _signed(_MULTIPLIERS[1])
    return x ^ _shift(x, 31)
