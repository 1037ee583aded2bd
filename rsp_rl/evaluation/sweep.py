"""All checkpoints of a run, one after the other, the base model first."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.console.screen import quiet, say
from rsp_rl.evaluation.manifest import add_difference, is_complete
from rsp_rl.evaluation.modes import Mode, shared_engines
from rsp_rl.evaluation.outputs import outcome_line, write_outputs
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.evaluation.reading import read_metrics
from rsp_rl.evaluation.runner import Outcome, evaluate
from rsp_rl.evaluation.trained_run import TrainedRun
from rsp_rl.evaluation.validated import unlike_validation
from rsp_rl.inference.requests import EngineOptions, Engines
from rsp_rl.models.folder import resolve_model_folder
from rsp_rl.runs.checkpoints import merge_checkpoint, merged_folder
from rsp_rl.runs.merging import has_adapter, shards_digest

POLL_SECONDS = 15.0


@dataclass(frozen=True)
class Sweep:
    """What to evaluate of a run, and how.

    Attributes:
        run: The training run.
        modes: What is asked, and where it goes.
        engine: How the models are run.
        data_dir: Folder with the benchmarks' files, if they are local.
        steps: The steps wanted, in that order; all there are if `None`, 0 for the base model.
        base_model: The model of step 0; what the run started from if `None`.
        keep_merged: Whether Hugging Face folders that had to be made of checkpoints stay.
        on_written: Called when what can be read of all modes has changed.
    """

    run: TrainedRun
    modes: Sequence[Mode]
    engine: EngineOptions
    data_dir: Path | None = None
    steps: Sequence[int] | None = None
    base_model: str | None = None
    keep_merged: bool = True
    on_written: Callable[[], None] = lambda: None

    def once(self) -> list[str]:
        """Evaluate what is there and not yet done.

        Returns:
            What failed, a line each; one step's, mode's or benchmark's failure keeps no other from
            it.
        """
        failures = [line for step in self._wanted() for line in self._step(step)]
        self._write()
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
                    self._write()
            if last is not None and last in present:
                return [line for lines in failed.values() for line in lines]
            time.sleep(POLL_SECONDS)

    def _write(self) -> None:
        for mode in self.modes:
            write_outputs(mode.folder)
        self.on_written()

    def _wanted(self, present_only: bool = False) -> list[int]:
        there = [0, *self.run.steps()]
        if self.steps is None:
            return there
        return [step for step in self.steps if step in there or not present_only]

    def _step(self, step: int) -> list[str]:
        """Evaluate one step in all modes, show them, log them; what failed in it."""
        failures, left = [], []
        for mode in self.modes:
            try:
                self._check_same(mode, step)
                if is_complete(mode.folder.step(step), mode.protocol):
                    say(f"{mode.of(step)}: done before")
                else:
                    left.append(mode)
            except RunFolderError as error:
                failures.append(f"{mode.of(step)}: {error}")
        if not left:
            return failures
        try:
            model = self._model(step, left[0])
            unlike = self._unlike_training(step, model, {m.protocol.template for m in left})
        except (ConfigError, RunFolderError) as error:
            return [*failures, f"step {step}: {error}"]
        failed: list[str] = []
        # One start for all modes of a step.
        with shared_engines(left, model, self.engine) as engines:
            for mode in left:
                template = mode.protocol.template
                failed += self._evaluate(mode, step, model, engines, unlike[template])
        checkpoint = self.run.steps().get(step)
        if checkpoint and not self.keep_merged and not failed:
            shutil.rmtree(merged_folder(checkpoint), ignore_errors=True)
        return failures + failed

    def _check_same(self, mode: Mode, step: int) -> None:
        """Refuse numbers that are not those of the checkpoint that is there.

        Raises:
            RunFolderError: If the step was evaluated before adapters were merged, or training has
                saved another checkpoint of the step since.
        """
        checkpoint, folder = self.run.steps().get(step), mode.folder.step(step)
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

    def _model(self, step: int, mode: Mode) -> Path:
        """The step's Hugging Face folder, made of its checkpoint where there is none yet."""
        checkpoint = self.run.steps().get(step)
        if step == 0 and checkpoint is None:
            named = self.base_model
            return resolve_model_folder(named) if named else self.run.base_model()
        if checkpoint is None:
            there = ", ".join(map(str, self.run.steps())) or "none"
            raise RunFolderError(
                f"{self.run.checkpoints} holds no whole checkpoint of it; there are: {there}"
            )
        with quiet(mode.folder.engine_log):
            return merge_checkpoint(checkpoint)

    def _unlike_training(
        self, step: int, model: Path, templates: Iterable[str]
    ) -> dict[str, list[str]]:
        """By template; said once."""
        dtype = self.engine.resolved_dtype()
        found = {name: self.run.unlike_training(name, model, dtype) for name in templates}
        for line in dict.fromkeys(line for lines in found.values() for line in lines):
            say(f"warning: step {step}: {line}")
        return found

    def _evaluate(
        self, mode: Mode, step: int, model: Path, engines: Engines, unlike: Sequence[str]
    ) -> list[str]:
        """Evaluate a step in one mode, show it, log it; what failed in it."""
        where, protocol, folder = mode.of(step), mode.protocol, mode.folder.step(step)
        try:
            outcome = evaluate(
                *(model, protocol, folder),
                engine=self.engine,
                engines=engines,
                data_dir=self.data_dir,
                law=self.run.law(),
                table=self._table(mode, step),
                unlike_training=unlike,
            )
            validated = self.run.validated(step) if self.run.validates_as(protocol.law) else {}
            for line in unlike_validation(validated, read_metrics(folder)):
                say(f"warning: {where}: {line}")
                add_difference(folder, line)
        except (ConfigError, RunFolderError) as error:
            return [f"{where}: {error}"]
        say(f"{where}: " + outcome_line(outcome))
        self._track(protocol, step, outcome)
        return [f"{where}, {name}: {why}" for name, why in outcome.failed.items()]

    def _table(self, mode: Mode, step: int) -> tuple[float, float] | None:
        """What the noise of thoughts is in units of; a checkpoint's own table only with a word."""
        law = None if mode.protocol.law is None else mode.protocol.law.law
        needed = getattr(law, "rms", 0.0) is None and getattr(law, "sigma", 0.0) > 0
        table = self.run.table(self.base_model) if needed else None
        if needed and table is None and step:
            say(
                f"warning: {mode.of(step)}: the model that training started from is gone, so noise "
                "is in units of this checkpoint's own table; name it with --base-model"
            )
        return table

    def _track(self, protocol: Protocol, step: int, outcome: Outcome) -> None:
        values = {f"eval/{protocol.name}/{name}": value for name, value in outcome.accuracy.items()}
        headline = [outcome.accuracy.get(name) for name in protocol.headline]
        if headline and None not in headline:
            values[f"eval/{protocol.name}/headline"] = sum(headline) / len(headline)
        if outcome.generated:
            with quiet(self.modes[0].folder.engine_log):
                self.run.track(values, step)
