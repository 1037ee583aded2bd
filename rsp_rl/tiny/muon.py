"""Muon: momentum whose matrix updates are orthogonalised, for a much shorter warm-up.

From Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
https://kellerjordan.github.io/posts/muon/. Torch has it too (``torch.optim.Muon``), but iterates in
bfloat16, which takes four times as long on CPUs without bfloat16 units.
"""

from collections.abc import Iterable

import torch

# The quintic iteration of the source: it brings every singular value near 1 in five rounds.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, without weight decay.

    Args:
        params: Weight matrices of hidden layers, each ``[out, in]``; embeddings, output layer,
            biases and norms belong to another optimiser.
        lr: Learning rate: the root-mean-square size of an update of a square matrix is about
            ``lr / sqrt(width)``.
        momentum: Decay of the running gradient.
    """

    def __init__(self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Updates every matrix from its gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["average"] = torch.zeros_like(weight)
                state["average"].lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalise(weight.grad.lerp(state["average"], group["momentum"]))
                # Tall matrices map to more outputs than inputs: scaled so that the size of the
                # outputs changes alike for every shape.
                tallness = max(1.0, weight.shape[0] / weight.shape[1])
                weight.add_(update, alpha=-group["lr"] * tallness**0.5)


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """Brings every singular value of a matrix ``[m, n]`` near 1, between about 0.7 and 1.2."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x if wide is matrix else x.T
