"""Muon in float32, beside torch's in bfloat16."""

import pytest
import torch

from rsp_rl.tiny.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 8), (16, 8), (8, 24)])
def test_takes_torchs_steps(shape: tuple[int, int]) -> None:
    """To bfloat16's rounding."""
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(4, *shape)

    def after(optimizer: type[torch.optim.Optimizer], **options) -> torch.Tensor:
        weight = torch.nn.Parameter(start.clone())
        stepper = optimizer([weight], lr=0.1, **options)
        for gradient in gradients:
            weight.grad = gradient.clone()
            stepper.step()
        return weight.detach() - start

    ours, torchs = after(Muon), after(torch.optim.Muon, weight_decay=0.0)
    assert (ours - torchs).norm() < 0.02 * torchs.norm()


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(32, 64)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_a_matrix_without_gradient_is_left_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight, torch.ones(2, 2))
