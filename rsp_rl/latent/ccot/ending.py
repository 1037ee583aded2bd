"""Tells from a thought's last hidden state whether it is the last thought.

A linear layer on state L of phi's (arXiv 2412.13171, section 3.3, END). The paper does not say how
it is trained. Ours learns beside the decoder, on the thoughts that phi has by itself, of which the
last one of a problem's k is the end; and it sends nothing back into phi.

Shapes: B rows, K thoughts, d width.
"""

from __future__ import annotations

import torch
from torch import nn

from rsp_rl.latent.ccot.adapters import exact
from rsp_rl.latent.ccot.thoughts import Thoughts


class Ending(nn.Linear):
    """The classifier, undecided at first.

    Args:
        width: d.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Log-odds that a thought is the last one, of states [..., d]."""
        return self(exact(states.detach()).to(self.weight.dtype))[..., 0]

    def loss(self, thoughts: Thoughts) -> torch.Tensor:
        """Mean cross-entropy over all thoughts, in nats."""
        real_BK = thoughts.real_BK
        has_next_BK = torch.cat([real_BK[:, 1:], torch.zeros_like(real_BK[:, :1])], dim=1)
        is_last_BK = (real_BK & ~has_next_BK).to(self.weight.dtype)
        return nn.functional.binary_cross_entropy_with_logits(
            self.logits(thoughts.last_BKd)[real_BK], is_last_BK[real_BK]
        )
