"""Counter-based noise: a pure function of (seed, absolute position, slot, index).

No generator has a state, so that a request's noise is the same in whatever batch it is, after a
preemption, and in a replay. Noise for a token is keyed by the token's id: logits that differ by
rounding reorder candidates without dealing their noise anew.

Bits are SplitMix64's (Steele et al. 2014), made of integers alone: equal on every device.

Shape suffixes: `_N` positions, `_NK` the same with indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))

#: Rejections of one gamma draw in a row are less likely than 0.05 each: more means a broken device.
_MOST_TRIES = 64


@dataclass(frozen=True)
class Noise:
    """The noise of N positions.

    Attributes:
        seeds_N: Of their requests, int64.
        positions_N: Absolute positions, prompt and soft prompt included, int64.
    """

    seeds_N: torch.Tensor
    positions_N: torch.Tensor

    @classmethod
    def of(
        cls, seeds: Sequence[int], positions: Sequence[int], device: torch.device | str = "cpu"
    ) -> Noise:
        """Of N positions.

        Args:
            seeds: Unsigned 64-bit integers; int64 has the same bits.
            positions: Absolute ones.
            device: Where the noise is made.
        """
        same_bits = [seed - (1 << 64) if seed >= 1 << 63 else seed for seed in seeds]
        return cls(torch.tensor(same_bits, device=device), torch.tensor(positions, device=device))

    def to(self, device: torch.device | str) -> Noise:
        """The same, made on a device."""
        return Noise(self.seeds_N.to(device), self.positions_N.to(device))

    def at(self, rows: torch.Tensor) -> Noise:
        """Of some of the positions."""
        return Noise(self.seeds_N[rows], self.positions_N[rows])

    def bits(self, slot: int | Sequence[int], index_NK: torch.Tensor) -> torch.Tensor:
        """64 bits each, int64 [N, K].

        Args:
            slot: Which of a position's draws; of several the result is [N, S, K].
            index_NK: What is drawn for, such as a token's id; [K] for all positions alike.
        """
        key_N1 = _mix(_mix(self.seeds_N + _GOLDEN) ^ (self.positions_N * _GOLDEN))[:, None]
        index_NK = (index_NK.long() + 1) * _GOLDEN
        if isinstance(slot, int):
            return _mix(_mix(key_N1 ^ _wrapped((slot + 1) * _MULTIPLIERS[0])) + index_NK)
        slots_S = torch.tensor(slot, device=key_N1.device) + 1
        key_NS1 = _mix(key_N1 ^ (slots_S * _MULTIPLIERS[0]))[:, :, None]
        return _mix(key_NS1 + (index_NK if index_NK.ndim == 1 else index_NK[:, None]))

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


def _wrapped(number: int) -> int:
    """As the 64-bit integer that torch takes."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift(x, 30)) * _MULTIPLIERS[0]
    x = (x ^ _shift(x, 27)) * _MULTIPLIERS[1]
    return x ^ _shift(x, 31)
