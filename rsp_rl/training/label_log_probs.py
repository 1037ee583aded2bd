"""Log-probs of given tokens from logits of any dtype, in fp32 and without an fp32 copy of all."""

from __future__ import annotations

import torch

#: Rows at a time: with a vocabulary of 150,000 their fp32 copy has 40 MB.
_ROWS = 64


def label_log_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """log softmax(logits)[label] of each row.

    verl's own, without flash attention, computes row after row, and in the dtype of the logits: in
    bfloat16 a log-prob of -2.6 then is one of -2.59, -2.61, ...

    Args:
        logits: [T, V], floating.
        labels: int64 [T].

    Returns:
        fp32 [T]; its gradient reaches `logits` in their dtype.
    """
    return _LabelLogProbs.apply(logits, labels)


class _LabelLogProbs(torch.autograd.Function):
    """d/d logits = grad x (one-hot(label) - softmax), computed from the logits again."""

    @staticmethod
    def forward(ctx, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        norms = torch.cat([part.float().logsumexp(-1) for part in logits.split(_ROWS)])
        ctx.save_for_backward(logits, labels, norms)
        return logits.gather(-1, labels[:, None])[:, 0].float() - norms

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, labels, norms = ctx.saved_tensors
        result = torch.empty_like(logits)
        parts = (logits, labels, norms, grad, result)
        for z, label, norm, by, out in zip(*(x.split(_ROWS) for x in parts), strict=True):
            p = z.float().sub_(norm[:, None]).exp_().mul_(-by[:, None])
            out.copy_(p.scatter_add_(-1, label[:, None], by[:, None]))
        return result, None
