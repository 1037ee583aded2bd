"""Thoughts: what phi is trained to predict, and what it thinks by itself.

A thought's input is the hidden state l of the column before it: of the question's last token for
the first one. What phi makes of it in layers 1 to L is held against theta's states at the tokens of
the chain that the thoughts stand for (arXiv 2412.13171, section 3.3).

Shapes: B rows, M tokens of chains, K thoughts, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from rsp_rl.latent.ccot.adapters import Adapters, exact
from rsp_rl.latent.ccot.batches import Batch, Rows
from rsp_rl.latent.ccot.stream import Stream


@dataclass(frozen=True)
class Thoughts:
    """What was thought.

    Attributes:
        inputs_BKd: States l that were fed in.
        last_BKd: States L that came out.
        real_BK: Which are a row's own.
    """

    inputs_BKd: torch.Tensor
    last_BKd: torch.Tensor
    real_BK: torch.Tensor


@torch.no_grad()
def read(adapters: Adapters, rows: Rows, layer: int) -> tuple[Stream, torch.Tensor]:
    """Has theta read questions.

    Returns:
        What was read, and states l [B, d] of the last tokens.
    """
    stream = Stream(adapters, len(rows.ids_BT))
    embeddings = adapters.model.get_input_embeddings()(rows.ids_BT)
    # All layers, for all have keys that thoughts and answers look at.
    states = stream.feed("theta", embeddings, rows.real_BT, {layer, adapters.layers})
    return stream, states[layer][:, -1]


@torch.no_grad()
def gold_states(
    adapters: Adapters, batch: Batch, layers: Collection[int], fed_back: int
) -> tuple[Stream, dict[int, torch.Tensor], torch.Tensor]:
    """What theta has at a chain's chosen tokens.

    The answer that follows the chain changes none of it, and is left out.

    Args:
        adapters: The model.
        batch: Problems.
        layers: Which states are wanted.
        fed_back: l.

    Returns:
        The question as it was read, up to the highest of these layers; states [B, K, d] by layer;
        and what thoughts have for inputs if each is what it should be, [B, K, d].
    """
    stream = Stream(adapters, len(batch.real_BK))
    ids_BT = torch.cat([batch.question.ids_BT, batch.chain.ids_BT], dim=1)
    real_BT = torch.cat([batch.question.real_BT, batch.chain.real_BT], dim=1)
    embeddings = adapters.model.get_input_embeddings()(ids_BT)
    states = stream.feed("theta", embeddings, real_BT, {*layers, fed_back})
    questions = batch.question.ids_BT.shape[1]
    stream.back_to(questions)
    columns_BK = questions + batch.thoughts_BK
    rows_B1 = torch.arange(len(columns_BK), device=columns_BK.device)[:, None]
    chosen = {layer: states[layer][rows_B1, columns_BK] for layer in states}
    first_B1d = states[fed_back][:, questions - 1 : questions]
    inputs_BKd = torch.cat([first_B1d, chosen[fed_back][:, :-1]], dim=1)
    return stream, chosen, inputs_BKd


def scaled_error(
    found_BKd: torch.Tensor, gold_BKd: torch.Tensor, real_BK: torch.Tensor
) -> torch.Tensor:
    """Mean squared error over the gold's variance: 1 is as good as the mean state.

    The variance is one number: of all entries of all gold states of the batch (ours; the paper's
    sigma squared of the gold may be another). Each problem counts the same, however many thoughts
    it has.
    """
    found_BKd, gold_BKd = exact(found_BKd), exact(gold_BKd)
    errors_BK = (found_BKd - gold_BKd).square().mean(dim=-1) * real_BK
    variance = gold_BKd[real_BK].var(correction=0)
    return (errors_BK.sum(dim=1) / real_BK.sum(dim=1)).mean() / variance


def think(
    adapters: Adapters,
    stream: Stream,
    first_Bd: torch.Tensor,
    layer: int,
    goes_on: Callable[[int, torch.Tensor], torch.Tensor],
) -> Thoughts:
    """Has phi think, each thought's state l the next one's input.

    Args:
        adapters: The model.
        stream: What was read; the thoughts are added to it.
        first_Bd: Input of the first thought.
        layer: l.
        goes_on: Tells of each row [B] whether it has another thought, from how many it has and its
            state L [B, d]; asked again only of rows that do.

    Returns:
        One thought at least of each row.
    """
    last = adapters.layers
    inputs, lasts, real = [], [], []
    input_Bd = first_Bd
    thinks_B = torch.ones(len(first_Bd), dtype=torch.bool, device=first_Bd.device)
    while thinks_B.any():
        states = stream.feed("phi", input_Bd[:, None], thinks_B[:, None], {layer, last})
        inputs.append(input_Bd)
        lasts.append(states[last][:, 0])
        real.append(thinks_B)
        input_Bd = states[layer][:, 0]
        thinks_B = thinks_B & goes_on(len(inputs), lasts[-1])
    return Thoughts(torch.stack(inputs, 1), torch.stack(lasts, 1), torch.stack(real, 1))
