"""Gradient descent on what stands at the soft prompt positions, through a frozen model.

One sequence at a time, gradients added up: no padding, and memory for one.

Shape suffixes: `_LD` soft prompt, `_NV` logits that an answer's N tokens were chosen by, `_N` one
loss a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.soft_prompts import HostModel

if TYPE_CHECKING:
    from rsp_rl.inference.requests import Request

#: Losses of an answer's tokens, [N], from the logits [N, V] that chose them and the tokens [N].
TokenLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


#: Hyper-parameters that may be 0; all others must be above it, and a seed may be anything.
_FROM_ZERO = ("weight_decay", "temperature")


@dataclass(frozen=True)
class TrainingSettings:
    """What the trainings have in common, the checks of all their numbers among it.

    Attributes:
        length: L.
        epochs: Passes over the problems.
        batch_size: Problems a mini-batch.
        accumulation: Mini-batches a step; each counts the same, whatever its answers' lengths.
        learning_rate: At the start.
        seed: Of first values and order.
    """

    length: int
    epochs: int
    batch_size: int
    accumulation: int
    learning_rate: float
    seed: int

    @property
    def step_size(self) -> int:
        """Problems a step."""
        return self.batch_size * self.accumulation

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name != "seed"):
            value = getattr(self, name)
            if not (value > 0 or (value == 0 and name in _FROM_ZERO)):
                bound = "from 0 on" if name in _FROM_ZERO else "above 0"
                raise ConfigError(f"--{name.replace('_', '-')} {value} must be {bound}")


@dataclass(frozen=True)
class Answered:
    """A prompt with an answer.

    Attributes:
        request: The prompt, with its record.
        answer_ids: Tokens of the answer, one at least.
        rows: Gives the vectors of its soft prompt, [L, d], with a gradient in what is trained.
    """

    request: Request
    answer_ids: list[int]
    rows: Callable[[], torch.Tensor]


def token_losses(host: HostModel, answered: Answered, loss: TokenLoss) -> torch.Tensor:
    """Losses of one answer's tokens, float32 [N]; differentiable in its soft prompt."""
    answer_ids, request = answered.answer_ids, answered.request
    # The last token chooses nothing that is counted; the prompt's last one chooses the first.
    token_ids = request.token_ids + answer_ids[:-1]
    logits_NV = host.logits(token_ids, request.record.start, answered.rows(), len(answer_ids))
    return loss(logits_NV, torch.tensor(answer_ids, device=logits_NV.device))


@torch.no_grad()
def mean_loss(host: HostModel, batch: Sequence[Answered], loss: TokenLoss) -> float:
    """Mean over all tokens of all answers, in nats."""
    losses = [token_losses(host, answered, loss) for answered in batch]
    return float(torch.cat(losses).mean())


def descend(
    host: HostModel,
    batch: Sequence[Answered],
    loss: TokenLoss,
    optimizer: torch.optim.Optimizer,
    *,
    batch_size: int | None = None,
    max_grad_norm: float | None = None,
) -> float:
    """One step on the mean over mini-batches of the mean loss over all tokens of each.

    Args:
        host: The frozen model.
        batch: All of the step's answers.
        loss: Of each token.
        optimizer: Of what is trained.
        batch_size: Answers a mini-batch; by default all are one.
        max_grad_norm: Longer gradients are shortened to it.

    Returns:
        The mean loss before the step, in nats.
    """
    size = batch_size or len(batch)
    parts = [batch[first : first + size] for first in range(0, len(batch), size)]
    total = 0.0
    optimizer.zero_grad()
    for part in parts:
        tokens = sum(len(answered.answer_ids) for answered in part)
        for answered in part:
            share = token_losses(host, answered, loss).sum() / (tokens * len(parts))
            share.backward()
            total += share.item()
    if max_grad_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()
    return total


def shuffled_batches(count: int, size: int, generator: torch.Generator) -> list[list[int]]:
    """The numbers below `count` in random order, `size` at a time; the last ones may be fewer."""
    order = torch.randperm(count, generator=generator).tolist()
    return [order[first : first + size] for first in range(0, count, size)]
