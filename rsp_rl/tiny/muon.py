"""Muon in the parameters' own precision: `torch.optim.Muon` orthogonalises in bfloat16.

On a CPU without bfloat16 units that takes four times as long as the forward and backward passes of
the tiny model together; in float32 a fifth.
"""

from collections.abc import Iterable

import torch

# As in torch.optim.Muon, whose defaults these are.
MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: Nesterov's, without weight decay (Jordan et al., 2024).

    Args:
        params: Matrices.
        lr: Learning rate; times sqrt(rows / columns) for a matrix that is higher than wide.
    """

    def __init__(self, params: Iterable[torch.Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of all matrices that have a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                update = orthogonalised(weight.grad.lerp(momentum, MOMENTUM))
                rows, columns = weight.shape
                weight.sub_(update, alpha=group["lr"] * max(1.0, rows / columns) ** 0.5)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix `[M, N]` with its singular values brought near 1, by Newton-Schulz iterations."""
    a, b, c = _COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    result = wide / wide.norm().clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram = result @ result.T
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result.T if matrix.shape[0] > matrix.shape[1] else result
