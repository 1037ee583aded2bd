"""All checkpoints of a run, one after the other, the base model first."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.console.screen import quiet, say
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.manifest import add_difference, is_complete
from rsp_rl.evaluation.outputs import outcome_line, write_outputs
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.evaluation.reading import read_metrics
from rsp_rl.evaluation.runner import Outcome, evaluate
from rsp_rl.evaluation.trained_run import TrainedRun
from rsp_rl.evaluation.validated import unlike_validation
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.models.folder import resolve_model_folder
from rsp_rl.runs.checkpoints import merge_checkpoint, merged_folder
from rsp_rl.runs.merging import has_adapter, shards_digest

POLL_SECONDS = 15.0


@dataclass(frozen=True)
class Sweep:
    """What to evaluate of a run, and how.

    Attributes:
        run: The training run.
        protocol: What is asked.
        folder: Where everything goes.
        engine: How the models are run.
        data_dir: Folder with the benchmarks' files, if they are local.
        steps: The steps wanted, in that order; all there are if `None`, 0 for the base model.
        base_model: The model of step 0; what the run started from if `None`.
        keep_merged: Whether Hugging Face folders that had to be made of checkpoints stay.
    """

    run: TrainedRun
    protocol: Protocol
    folder: EvaluationFolder
    engine: EngineOptions
    data_dir: Path | None = None
    steps: Sequence[int] | None = None
    base_model: str | None = None
    keep_merged: bool = True

    def once(self) -> list[str]:
        """Evaluate what is there and not yet done.

        Returns:
            What failed, a line each; one step's or benchmark's failure keeps no other from it.
        """
        failures = [line for step in self._wanted() for line in self._step(step)]
        write_outputs(self.folder)
        return failures

    def watch(self) -> list[str]:
        """Evaluate each checkpoint as it lands, until the last one of the training is done.

        Returns:
            As `once`, over the whole time.
        """
        last = max(self.steps) if self.steps else self.run.last_step()
        failed: dict[int, list[str]] = {}
        while True:
            present = self._wanted(present_only=True)
            for step in present:
                if step not in failed:
                    failed[step] = self._step(step)
                    write_outputs(self.folder)
            if last is not None and last in present:
                return [line for lines in failed.values() for line in lines]
            time.sleep(POLL_SECONDS)

    def _wanted(self, present_only: bool = False) -> list[int]:
        there = [0, *self.run.steps()]
        if self.steps is None:
            return there
        return [step for step in self.steps if step in there or not present_only]

    def _is_done(self, step: int) -> bool:
        return is_complete(self.folder.step(step), self.protocol)

    def _step(self, step: int) -> list[str]:
        """Evaluate one step, show it, log it; what failed in it."""
        try:
            self._check_same(step)
            if self._is_done(step):
                say(f"step {step}: done before")
                return []
            outcome = self._evaluate(step)
        except (ConfigError, RunFolderError) as error:
            return [f"step {step}: {error}"]
        say(f"step {step}: " + outcome_line(outcome))
        self._track(step, outcome)
        return [f"step {step}, {name}: {why}" for name, why in outcome.failed.items()]

    def _check_same(self, step: int) -> None:
        """Refuse numbers that are not those of the checkpoint that is there.

        Raises:
            RunFolderError: If the step was evaluated before adapters were merged, or training has
                saved another checkpoint of the step since.
        """
        checkpoint, folder = self.run.steps().get(step), self.folder.step(step)
        if checkpoint is None or not folder.manifest.is_file():
            return
        actor, stored = checkpoint / "actor", read_json(folder.manifest).get("stored")
        made = (stored or {}).get("made_of")
        if stored is None and has_adapter(actor):
            why = "evaluated without its LoRA adapter: the numbers are the base model's"
        elif made and made["shards"] != shards_digest(actor):
            why = f"evaluated with another checkpoint than {checkpoint} is now"
        else:
            return
        add_difference(folder, why)  # its numbers are in the table until it is removed
        raise RunFolderError(f"{folder.root} was {why}; remove the folder and evaluate again")

    def _evaluate(self, step: int) -> Outcome:
        checkpoint = self.run.steps().get(step)
        if step == 0 and checkpoint is None:
            named = self.base_model
            model = resolve_model_folder(named) if named else self.run.base_model()
        elif checkpoint is None:
            there = ", ".join(map(str, self.run.steps())) or "none"
            raise RunFolderError(
                f"{self.run.checkpoints} holds no whole checkpoint of it; there are: {there}"
            )
        else:
            with quiet(self.folder.engine_log):
                model = merge_checkpoint(checkpoint)
        dtype = self.engine.resolved_dtype()
        unlike = self.run.unlike_training(self.protocol.template, model, dtype)
        for line in unlike:
            say(f"warning: step {step}: {line}")
        outcome = evaluate(
            model,
            self.protocol,
            self.folder.step(step),
            engine=self.engine,
            data_dir=self.data_dir,
            law=self.run.law(),
            unlike_training=unlike,
        )
        folder = self.folder.step(step)
        for line in unlike_validation(self.run.validated(step), read_metrics(folder)):
            say(f"warning: step {step}: {line}")
            add_difference(folder, line)
        if checkpoint and not self.keep_merged and not outcome.failed:
            shutil.rmtree(merged_folder(checkpoint), ignore_errors=True)
        return outcome

    def _track(self, step: int, outcome: Outcome) -> None:
        values = {
            f"eval/{self.protocol.name}/{name}": value for name, value in outcome.accuracy.items()
        }
        headline = [outcome.accuracy.get(name) for name in self.protocol.headline]
        if headline and None not in headline:
            values[f"eval/{self.protocol.name}/headline"] = sum(headline) / len(headline)
        if outcome.generated:
            with quiet(self.folder.engine_log):
                self.run.track(values, step)
