"""What is trained after what, and with which loss.

First phi, a layer after the other, each to predict theta's states of that layer; then psi, to
answer from what phi thinks by itself; then both, of phi the layers above l alone, which is as far
as the answer's loss helps it (arXiv 2412.13171, sections 3.3 and 4.2). Without thoughts there is
psi's part alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.answers import answer_loss
from rsp_rl.latent.ccot.batches import Batch
from rsp_rl.latent.ccot.ending import Ending
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.ccot.stream import Stream
from rsp_rl.latent.ccot.thoughts import Thoughts, gold_states, read, scaled_error, think

GENERATOR, DECODER, JOINT = "generator", "decoder", "joint"


@dataclass(frozen=True)
class Phase:
    """Epochs with one loss and one set of parameters.

    Attributes:
        name: `GENERATOR`, `DECODER` or `JOINT`.
        epochs: Passes over the problems.
        layer: Which of phi's learns, from 1; 0 in the other phases.
    """

    name: str
    epochs: int
    layer: int = 0

    def __str__(self) -> str:
        """As progress shows it."""
        return f"{self.name}, layer {self.layer}" if self.layer else self.name


def phases_of(settings: CcotSettings, layers: int) -> list[Phase]:
    """All phases of a training of a model of so many layers, those without epochs left out.

    Raises:
        ConfigError: See `CcotSettings.layer_of`.
    """
    settings.layer_of(layers)
    phases = [Phase(DECODER, settings.decoder_epochs)]
    if settings.ratio:
        generator = [
            Phase(GENERATOR, settings.epochs_per_layer, layer) for layer in range(1, layers + 1)
        ]
        phases = [*generator, *phases, Phase(JOINT, settings.joint_epochs)]
    elif settings.joint_epochs:  # there is nothing to train psi with
        phases = [Phase(DECODER, settings.decoder_epochs + settings.joint_epochs)]
    return [phase for phase in phases if phase.epochs]


def trained_in(
    phase: Phase, adapters: Adapters, ending: Ending, settings: CcotSettings
) -> list[list[nn.Parameter]]:
    """What learns in a phase: of the adapters, and the classifier where there are thoughts."""
    if phase.name == GENERATOR:
        return [adapters.parameters("phi", [phase.layer])]
    learning = adapters.parameters("psi")
    if phase.name == JOINT:
        above = range(settings.layer_of(adapters.layers) + 1, adapters.layers + 1)
        learning = [*learning, *adapters.parameters("phi", above)]
    return [learning, list(ending.parameters())] if settings.ratio else [learning]


def losses_of(
    phase: Phase, adapters: Adapters, ending: Ending, batch: Batch, settings: CcotSettings
) -> dict[str, torch.Tensor]:
    """The losses of a batch by name, whose sum is gone down: they share no parameter."""
    layer = settings.layer_of(adapters.layers)
    if phase.name == GENERATOR:
        return {"state_error": _state_error(phase.layer, adapters, batch, layer)}
    stream, first_Bd = read(adapters, batch.question, layer)
    if not settings.ratio:
        return {"answer_loss": answer_loss(adapters, stream, batch.answer)}
    thoughts = _own_thoughts(adapters, stream, first_Bd, batch, layer)
    if phase.name == JOINT:
        thoughts = _again(adapters, stream, batch, thoughts)
    return {
        "answer_loss": answer_loss(adapters, stream, batch.answer),
        "end_loss": ending.loss(thoughts),
    }


def _state_error(trained: int, adapters: Adapters, batch: Batch, layer: int) -> torch.Tensor:
    stream, gold, inputs_BKd = gold_states(adapters, batch, {trained}, layer)
    found = stream.feed("phi", inputs_BKd, batch.real_BK, {trained})
    return scaled_error(found[trained], gold[trained], batch.real_BK)


@torch.no_grad()
def _own_thoughts(
    adapters: Adapters, stream: Stream, first_Bd: torch.Tensor, batch: Batch, layer: int
) -> Thoughts:
    """As many as each chain has chosen tokens."""
    counts_B = batch.real_BK.sum(dim=1)
    return think(adapters, stream, first_Bd, layer, lambda done, _: counts_B > done)


def _again(adapters: Adapters, stream: Stream, batch: Batch, thoughts: Thoughts) -> Thoughts:
    """The same thoughts at once, differentiable in phi's layers above l.

    Nothing is lost by doing without the steps between: what is fed back comes from the layers up to
    l, which learn nothing here.
    """
    stream.back_to(batch.question.ids_BT.shape[1])
    last = adapters.layers
    states = stream.feed("phi", thoughts.inputs_BKd, thoughts.real_BK, {last})
    return Thoughts(thoughts.inputs_BKd, states[last], thoughts.real_BK)
