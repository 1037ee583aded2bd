"""A training of Coconut, a baseline or an ablation: epochs, checkpoints, validation, one model.

A run folder holds `run.json` (settings and what they were applied to), `metrics.jsonl` (a line a
step, and one an epoch with the validation's accuracy), `checkpoints/` and, at the end, `model/`:
the model of the best epoch among those at the method's last stage, by the validation file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsp_rl.basics.errors import RunBrokenError
from rsp_rl.basics.files import locked
from rsp_rl.console.screen import bar, say
from rsp_rl.data.step_problems import StepProblem, problems_digest
from rsp_rl.latent.epochs import batches, epoch_rows, longest_rows
from rsp_rl.latent.folder import (
    Thinker,
    Thinking,
    begin_markers,
    load_thinker,
    new_classifier,
    save_thinker,
)
from rsp_rl.latent.generation import answer, check_room
from rsp_rl.latent.layout import Batch, Row, collate
from rsp_rl.latent.methods import NOTHING
from rsp_rl.latent.optimizers import Optimizers, begins_anew
from rsp_rl.latent.problem_tokens import ProblemTokens, is_right, tokenize
from rsp_rl.latent.processes import Place, add_up, processes
from rsp_rl.latent.run_folder import MODEL
from rsp_rl.latent.run_state import (
    checkpoint,
    claim,
    finished,
    finished_model,
    forget,
    newest,
    note,
)
from rsp_rl.latent.settings import CLASSIFIER, Settings
from rsp_rl.latent.step_decoder import StepDecoder, tokens_of
from rsp_rl.latent.thinking import hidden_states, token_losses
from rsp_rl.models.context import context_of

_WEIGHTS, _STATE = "huggingface", "training.pt"


@dataclass
class _State:
    """Where a training is.

    Attributes:
        epoch: That is under way or next.
        step: Optimiser steps of it that are done.
        steps: In all.
        best: Accuracy of the model that is kept, below 0 where there is none.
        best_epoch: Its epoch.
        seconds: Of training so far.
    """

    epoch: int
    step: int = 0
    steps: int = 0
    best: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0


def train(
    model: Path,
    problems: Sequence[StepProblem],
    validation: Sequence[StepProblem],
    settings: Settings,
    run: Path,
    described: Mapping[str, Any],
) -> Path:
    """Train, or go on where a run was cut off.

    Args:
        model: Hugging Face folder to begin with.
        problems: Of the training file.
        validation: Of the validation file.
        settings: Of the training.
        run: The run's folder.
        described: What model and data are; a run goes on with the same alone, and with the same
            problems.

    Returns:
        The folder of the finished model.

    Raises:
        ConfigError: If the model cannot think, or a problem does not fit, or nothing is to be
            trained on.
        RunFolderError: If the folder is another run's, or in use, or lacks what it should have.
    """
    validation = validation[: settings.validation_limit]
    described = {
        **described,
        "problems_digest": problems_digest(problems),
        "validation_digest": problems_digest(validation),
    }
    with processes() as place, locked(run) if place.rank == 0 else nullcontext():
        if place.rank == 0:
            claim(run, asdict(settings), described)
        place.meet()
        saved = newest(run)
        state = _State(settings.first_epoch) if saved is None else _saved_state(saved)
        if state.epoch >= settings.epochs:
            return finished(run)
        thinker = load_thinker(model if saved is None else saved / _WEIGHTS)
        if saved is None and thinker.thinking is not None and thinker.method.filler == NOTHING:
            begin_markers(thinker)
        thinker.thinking = Thinking.of(settings)
        thinker.model.to(place.device)
        if settings.ends == CLASSIFIER:
            if thinker.classifier is None:
                thinker.classifier = new_classifier(thinker.model)
            thinker.classifier.to(place.device)
        else:  # of a model that the training begins with
            thinker.classifier = None
        tokens = tokenize(problems, thinker.tokenizer)
        context = context_of(thinker.model.config)
        place_of = str(described.get("train", "training file"))
        longest_rows(tokens, settings, thinker.markers, context, place_of)  # or an error
        _check_answers(validation, thinker, str(described.get("validation", "validation file")))
        if place.rank == 0:
            forget(run, lambda figures: _lies_before(figures, state))
        training = _Training(thinker, settings, run, place, state)
        if saved is not None:
            training.load(saved)
        training.run_all(tokens, validation)
        return run / MODEL


class _Training:
    """Weights, optimiser and where the training is."""

    def __init__(
        self,
        thinker: Thinker,
        settings: Settings,
        run: Path,
        place: Place,
        state: _State,
    ) -> None:
        self.thinker, self.settings, self.run = thinker, settings, run
        self.device, self.rank, self.size, self.state = place.device, place.rank, place.size, state
        self.decoder: StepDecoder | None = None
        if settings.step_decoder:
            each, end = settings.thoughts_per_step, thinker.tokenizer.eos_token_id
            # It drops out as the model does.
            self.decoder = StepDecoder(thinker.model, each, end).train()
        self.optimizers = self.new_optimizers()
        self.longest = self.steps_of_epoch = 0

    def new_optimizers(self) -> Optimizers:
        """Of all weights that are trained."""
        return Optimizers(self.thinker, self.settings, self.decoder)

    def run_all(self, problems: Sequence[ProblemTokens], validation: Sequence[StepProblem]) -> None:
        """All epochs that are left."""
        settings, state = self.settings, self.state
        self.longest = max(sum(map(len, problem.steps)) for problem in problems)
        self.steps_of_epoch = math.ceil(len(problems) / settings.batch_size)
        while state.epoch < settings.epochs:
            epoch, begun = state.epoch, time.monotonic()
            if state.step == 0 and begins_anew(settings, epoch):
                self.optimizers = self.new_optimizers()
            steps = batches(
                epoch_rows(problems, settings, self.thinker.markers, epoch), settings.batch_size
            )
            label = f"epoch {epoch + 1}/{settings.epochs} stage {settings.stage(epoch)}"
            progress = bar(total=len(steps), label=label, unit="step", show=self.rank == 0)
            progress.update(state.step)
            for number in range(state.step, len(steps)):
                figures = self.step(steps[number], epoch, number)
                progress.set_postfix_str(f"loss {figures['loss']:.3f}", refresh=False)
                progress.update()
                state.step += 1
                state.steps += 1
                state.seconds += figures["seconds"]
                self.note({"epoch": epoch, "step": state.steps, **figures})
                if state.step % settings.save_steps == 0 and state.step < len(steps):
                    self.save()
            progress.close()
            self.end_epoch(epoch, validation, begun)

    def step(self, rows: Sequence[Row], epoch: int, number: int) -> dict[str, float]:
        """One optimiser step; what is noted of it."""
        begun, settings, thinker = time.monotonic(), self.settings, self.thinker
        # Dropout of a step is the same in a run that was cut off before it.
        torch.manual_seed(_seed_of_step(settings.seed, epoch, number, self.rank))
        thinker.model.train()
        total = sum(len(row.token_ids) - row.first_label for row in rows)
        own = sorted(rows, key=lambda row: len(row.token_ids))[self.rank :: self.size]
        stood_for = tokens_of([row.stood_for for row in rows])
        thoughts = sum(row.thoughts for row in rows)
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        for start in range(0, len(own), settings.micro_batch_size):
            micro = own[start : start + settings.micro_batch_size]
            part = collate(micro, thinker.pad).to(self.device)
            states_BTd = hidden_states(thinker.model, part, recompute=settings.recompute)
            loss = token_losses(thinker.model, states_BTd, part).sum() / total
            sums[0] += loss.detach()
            if part.passes:
                thoughts_Nd = states_BTd.detach()[:, :-1][part.thoughts_BT[:, 1:]]
                sums[1] += thoughts_Nd.norm(dim=-1).sum()
                sums[2] += len(thoughts_Nd)
            if self.decoder is not None and stood_for:
                own_steps = [row.stood_for for row in micro]
                told = self.decoder.losses(states_BTd, part, own_steps).sum() / stood_for
                loss = loss + settings.step_decoder * told
                sums[3] += told.detach()
            if thinker.classifier is not None and part.passes:
                ends = _end_loss(thinker.classifier, states_BTd.detach(), part)
                loss = loss + ends / thoughts
            loss.backward()
        # What has no loss in any process has no gradient in any: not even its decay moves it.
        weights = [*thinker.model.parameters()]
        if self.decoder is not None and stood_for:
            weights += self.decoder.parameters()
        ends_by = [] if thinker.classifier is None or not thoughts else [thinker.classifier]
        apart = [weight for classifier in ends_by for weight in classifier.parameters()]
        if self.size > 1:
            for weight in (*weights, *apart):
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
            add_up([*(weight.grad for weight in (*weights, *apart)), sums])
        bound = settings.max_grad_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(weights, bound)
        torch.nn.utils.clip_grad_norm_(apart, bound)  # by itself: it moves none of the model's
        if not torch.isfinite(norm):
            raise RunBrokenError(
                f"the gradient of epoch {epoch}, step {number} is {float(norm)}: the training has "
                f"come apart; the last checkpoint of {self.run} is whole. Take a lower "
                "learning_rate, or set max_grad_norm"
            )
        begins = epoch
        while not begins_anew(settings, begins):
            begins -= 1
        done = (epoch - begins) * self.steps_of_epoch + number
        self.optimizers.step(min(1.0, (done + 1) / (settings.warmup_steps + 1)))
        for weight in (*weights, *apart):
            weight.grad = None
        figures = {
            "loss": float(sums[0]),
            "stage": settings.stage(epoch),
            "tokens": total,
            "grad_norm": float(norm),
            "seconds": time.monotonic() - begun,
        }
        if self.decoder is not None and stood_for:
            figures["step_loss"] = float(sums[3])
        if sums[2]:
            figures["thought_norm"] = float(sums[1] / sums[2])
            table = thinker.model.get_input_embeddings().weight
            figures["embedding_norm"] = float(table.detach().norm(dim=-1).mean())
        return figures

    def end_epoch(self, epoch: int, validation: Sequence[StepProblem], begun: float) -> None:
        """Validate, keep the best model, save."""
        state, settings = self.state, self.settings
        state.epoch, state.step = epoch + 1, 0
        if self.rank == 0:
            accuracy = self.accuracy(validation)
            # Of equals the later one: it has been trained longer.
            if self.at_last(epoch) and accuracy >= state.best:
                state.best, state.best_epoch = accuracy, epoch
                self.keep()
            self.note({"epoch": epoch, "validation_accuracy": accuracy, "of": len(validation)})
            say(
                f"epoch {epoch + 1}/{settings.epochs}  stage {settings.stage(epoch)}  "
                f"validation {accuracy:.3f}  {time.monotonic() - begun:.0f} s"
            )
        self.save()

    def at_last(self, epoch: int) -> bool:
        """Whether an epoch trains what the last one does: before, a model answers otherwise."""
        settings, last = self.settings, self.settings.epochs - 1
        removed = min(settings.removed_tokens(last), self.longest)
        return (
            settings.stage(epoch) == settings.stage(last)
            and settings.removed_tokens(epoch) >= removed
        )

    def accuracy(self, problems: Sequence[StepProblem]) -> float:
        """Share of problems that the model answers rightly with its own number of thoughts."""
        questions = [tokens.question for tokens in tokenize(problems, self.thinker.tokenizer)]
        answers = answer(self.thinker, questions)
        right = [is_right(a.text, p.answer) for a, p in zip(answers, problems, strict=True)]
        return sum(right) / len(right)

    def keep(self) -> None:
        """Make the model the run's, in place of an earlier one."""
        with finished_model(self.run) as folder:
            save_thinker(folder, self.thinker)

    def note(self, figures: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`."""
        if self.rank == 0:
            note(self.run, figures)

    def save(self) -> None:
        """A checkpoint that is whole or not there, in place of the one before."""
        if self.rank != 0:
            return
        with checkpoint(self.run, self.state.steps) as part:
            save_thinker(part / _WEIGHTS, self.thinker)
            content = {"state": asdict(self.state), "optimizers": self.optimizers.state()}
            if self.decoder is not None:
                content["decoder"] = self.decoder.state_dict()
            torch.save(content, part / _STATE)

    def load(self, saved: Path) -> None:
        """Optimiser of a checkpoint, its weights being loaded."""
        content = torch.load(saved / _STATE, weights_only=True, map_location=self.device)
        self.optimizers.load(content["optimizers"])
        if self.decoder is not None:
            self.decoder.load_state_dict(content["decoder"])
        if self.rank == 0:
            say(f"resumed  epoch {self.state.epoch + 1}, {self.state.step} steps of it are done")


def _end_loss(classifier: torch.nn.Linear, states_BTd: torch.Tensor, part: Batch) -> torch.Tensor:
    """Sum of the classifier's losses over all thoughts, each row's last one being the end."""
    thoughts_BT = part.thoughts_BT
    last_BT = thoughts_BT & ~torch.nn.functional.pad(thoughts_BT[:, 1:], (0, 1))
    return torch.nn.functional.binary_cross_entropy_with_logits(
        classifier(states_BTd[thoughts_BT].float())[:, 0],
        last_BT[thoughts_BT].float(),
        reduction="sum",
    )


def _check_answers(validation: Sequence[StepProblem], thinker: Thinker, place: str) -> None:
    """See `check_room`: what is found after the first epoch otherwise."""
    assert thinker.thinking is not None
    questions = [tokens.question for tokens in tokenize(validation, thinker.tokenizer)]
    check_room(questions, thinker.thinking, context_of(thinker.model.config), place)


def _seed_of_step(*place: int) -> int:
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def _lies_before(figures: Mapping[str, Any], state: _State) -> bool:
    return figures["step"] <= state.steps if "step" in figures else figures["epoch"] < state.epoch


def _saved_state(saved: Path) -> _State:
    return _State(**torch.load(saved / _STATE, weights_only=True, map_location="cpu")["state"])
