"""The optimiser of a training, new at a time of its own, and where its state lies."""

from __future__ import annotations

from typing import Any

import torch

from rsp_rl.latent.folder import Thinker
from rsp_rl.latent.settings import AT_NO_TIME, EACH_EPOCH, MUON, Settings
from rsp_rl.tiny.muon import Muon

MUON_LEARNING_RATE = 1e-2


class Optimizers:
    """AdamW, and Muon where it was asked for, as one.

    Args:
        thinker: All of whose weights are trained.
        settings: Of the training.
        beside: What is trained beside the model, if anything is.
    """

    def __init__(
        self, thinker: Thinker, settings: Settings, beside: torch.nn.Module | None = None
    ) -> None:
        blocks = []
        if settings.optimizer == MUON:
            tables = (
                thinker.model.get_input_embeddings().weight,
                thinker.model.get_output_embeddings().weight,
            )
            blocks = [
                weight
                for name, weight in thinker.model.named_parameters()
                if weight.ndim == 2
                and not any(weight is table for table in tables)
                and "wpe" not in name  # GPT-2's positions are a table as well
            ]
        ids = {id(weight) for weight in blocks}
        rest = [weight for weight in thinker.model.parameters() if id(weight) not in ids]
        rest += [] if beside is None else beside.parameters()
        groups: list[dict[str, Any]] = [{"params": rest}]
        if thinker.classifier is not None:
            groups.append(
                {
                    "params": list(thinker.classifier.parameters()),
                    "lr": settings.classifier_learning_rate,
                    "weight_decay": 0.0,
                }
            )
        self._all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        ]
        if blocks:
            self._all.append(Muon(blocks, lr=MUON_LEARNING_RATE))
        self._rates = [[group["lr"] for group in one.param_groups] for one in self._all]

    def step(self, share: float) -> None:
        """One update at a share of the learning rates."""
        for one, rates in zip(self._all, self._rates, strict=True):
            for group, rate in zip(one.param_groups, rates, strict=True):
                group["lr"] = rate * share
            one.step()

    def state(self) -> list[dict[str, Any]]:
        """What `load` takes."""
        return [one.state_dict() for one in self._all]

    def load(self, state: list[dict[str, Any]]) -> None:
        """Go on from a state."""
        for one, saved in zip(self._all, state, strict=True):
            one.load_state_dict(saved)


def begins_anew(settings: Settings, epoch: int) -> bool:
    """Whether an epoch begins with a new optimiser."""
    if settings.reset_optimizer == AT_NO_TIME:
        return epoch == settings.first_epoch
    if settings.reset_optimizer == EACH_EPOCH or epoch == settings.first_epoch:
        return True
    return settings.stage(epoch) != settings.stage(epoch - 1)
