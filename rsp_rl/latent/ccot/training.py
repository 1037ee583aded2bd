"""Trains a model's adapters and the classifier, a step at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rsp_rl.basics.errors import RunBrokenError
from rsp_rl.latent.ccot.adapters import Adapters
from rsp_rl.latent.ccot.batches import collate
from rsp_rl.latent.ccot.ending import Ending
from rsp_rl.latent.ccot.phases import Phase, losses_of, phases_of, trained_in
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.problem_tokens import ProblemTokens


class CcotTrainer:
    """A training, which can be taken up at any of its steps.

    Args:
        adapters: The model.
        ending: The classifier.
        problems: Tokens of problems with steps; see `rsp_rl.latent.ccot.batches.check_problems`.
        settings: What to do.
    """

    def __init__(
        self,
        adapters: Adapters,
        ending: Ending,
        problems: Sequence[ProblemTokens],
        settings: CcotSettings,
    ) -> None:
        self._adapters, self._ending = adapters, ending
        self._problems, self._settings = problems, settings
        self._phases = phases_of(settings, adapters.layers)
        self._steps_of_epoch = math.ceil(len(problems) / settings.batch_size)
        self.steps_done = 0
        self._begin(self._phases[0])

    @property
    def steps(self) -> int:
        """Of all phases together."""
        return sum(phase.epochs for phase in self._phases) * self._steps_of_epoch

    def step(self) -> dict[str, Any]:
        """One step.

        Returns:
            `phase`, `layer`, `epoch` within the phase, and the losses before the step.

        Raises:
            RunBrokenError: If a loss is no number, or a gradient.
        """
        phase, epoch, number = self._place(self.steps_done)
        if epoch == number == 0:
            self._begin(phase)
        settings = self._settings
        first = number * settings.batch_size
        chosen = self._order(phase, epoch)[first : first + settings.batch_size]
        batch = collate([self._problems[index] for index in chosen], settings.ratio)
        batch = batch.to(self._adapters.device)
        losses = losses_of(phase, self._adapters, self._ending, batch, settings)
        found = {name: float(loss.detach()) for name, loss in losses.items()}
        if not all(map(math.isfinite, found.values())):
            raise RunBrokenError(
                f"CCOT, {phase}, step {self.steps_done + 1}: the loss is no number ({found}); set "
                "a lower learning_rate, or float32"
            )
        self._optimizer.zero_grad()
        sum(losses.values()).backward()
        for group in self._optimizer.param_groups:
            norm = torch.nn.utils.clip_grad_norm_(group["params"], settings.max_grad_norm)
            if not torch.isfinite(norm):
                raise RunBrokenError(
                    f"CCOT, {phase}, step {self.steps_done + 1}: the gradient is {float(norm)}; "
                    "set a lower learning_rate, or float32"
                )
        self._optimizer.step()
        self.steps_done += 1
        return {"phase": phase.name, "layer": phase.layer, "epoch": epoch, **found}

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if nothing had been."""
        return {
            "steps_done": self.steps_done,
            "adapters": {k: v.detach() for k, v in self._adapters.state_dict().items()},
            "ending": self._ending.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; settings and problems are the same."""
        self._adapters.load_state_dict(state["adapters"])
        self._ending.load_state_dict(state["ending"])
        self.steps_done = state["steps_done"]
        # After the last step of a phase its optimiser is still the one that was saved.
        phase, _, _ = self._place(max(0, self.steps_done - 1))
        self._begin(phase)
        self._optimizer.load_state_dict(state["optimizer"])

    def _begin(self, phase: Phase) -> None:
        """An optimiser of its own for each phase (ours)."""
        groups = trained_in(phase, self._adapters, self._ending, self._settings)
        self._adapters.train_only(groups[0])
        self._optimizer = torch.optim.AdamW(
            [{"params": group} for group in groups],
            lr=self._settings.learning_rate,
            weight_decay=self._settings.weight_decay,
        )

    def _place(self, step: int) -> tuple[Phase, int, int]:
        """Phase, epoch within it and step within that, all from 0."""
        epoch, number = divmod(step, self._steps_of_epoch)
        for phase in self._phases:
            if epoch < phase.epochs:
                return phase, epoch, number
            epoch -= phase.epochs
        raise IndexError(f"a training of {self.steps} steps has no step {step}")

    def _order(self, phase: Phase, epoch: int) -> np.ndarray:
        """Of the problems; the same whenever it is asked for."""
        key = [self._settings.seed, self._phases.index(phase), epoch]
        return np.random.default_rng(key).permutation(len(self._problems))
