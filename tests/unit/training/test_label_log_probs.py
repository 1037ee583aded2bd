"""Log-probs of labels: torch's own in float64, whatever the dtype and the number of rows."""

from __future__ import annotations

import pytest
import torch

from rsp_rl.training.label_log_probs import label_log_probs

BOUND = {torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float64: 1e-5}


@pytest.mark.parametrize("rows", [1, 63, 64, 129])
@pytest.mark.parametrize("dtype", list(BOUND))
def test_are_torchs(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(rows)
    logits = (5 * torch.randn(rows, 97)).to(dtype).requires_grad_()
    labels, weights = torch.randint(0, 97, (rows,)), torch.randn(rows)
    exact = logits.detach().double().requires_grad_()
    expected = torch.log_softmax(exact, -1).gather(-1, labels[:, None])[:, 0]

    found = label_log_probs(logits, labels)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < BOUND[dtype]

    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert logits.grad.dtype == dtype
    rounding = 0.01 if dtype == torch.bfloat16 else 1e-5
    assert (logits.grad - exact.grad).abs().max() < rounding


def test_bfloat16_logits_do_not_round_log_probs() -> None:
    """Rounded, neighbours of -2.6 lie 0.016 apart."""
    logits = torch.randn(200, 500).to(torch.bfloat16)
    found = label_log_probs(logits, torch.zeros(200, dtype=torch.long))
    assert (found != found.to(torch.bfloat16).float()).float().mean() > 0.9


def test_masked_tokens_have_no_gradient() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0]], requires_grad=True)
    label_log_probs(logits, torch.tensor([2])).sum().backward()
    assert logits.grad[0, 1] == 0
    assert torch.isfinite(logits.grad).all()
