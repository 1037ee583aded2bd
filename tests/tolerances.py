"""How far apart two right results may lie: by rounding, or by chance.

A tolerance is written as its reason: how many roundings of numbers how large. Each is at most half
an epsilon of the number's size, so a whole epsilon for each leaves room. Where nothing is rounded
twice results are compared exactly. `pytest.approx` without a tolerance allows 1e-6 of the value:
billions of roundings of float64, for numbers that are wrong by far more if they are wrong.
"""

import math

import torch


def rounding(operations: int, size: float = 1.0, dtype: torch.dtype = torch.float32) -> float:
    """The largest difference that rounding can make, absolute.

    Args:
        operations: How many times a result of that size is rounded, in both computations together.
        size: The largest number that occurs on the way, not in the end: exp(x) of a rounded x = 20
            is off by 20 epsilons of itself.
        dtype: That the computation was done in.
    """
    return operations * torch.finfo(dtype).eps * size


def chance(deviation: float, draws: int) -> float:
    """How far the mean of so many draws strays: six standard errors, one in 500 million.

    Args:
        deviation: Standard deviation of one draw.
        draws: Their number, independent.
    """
    return 6 * deviation / math.sqrt(draws)


#: Of log-probs and logits by two float32 forward passes of a tiny model: logits of up to 20 that a
#: thousand roundings lead to (products of four layers), which cancel as a random walk does.
FORWARD = rounding(32, size=20)
