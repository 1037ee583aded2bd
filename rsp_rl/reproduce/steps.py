"""Carry a plan out: evaluations first, on engines that they share, then the analyses.

What is finished is kept. What fails is named and does not keep the rest from being done.
"""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from rsp_rl.basics.errors import ConfigError, GenerationError, PlacementError, RunFolderError
from rsp_rl.basics.files import read_json, write_json
from rsp_rl.console.screen import say
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.inference.prompts import stable_hash
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.reproduce.plan import Analysis, Evaluation, evaluations

_EXPECTED = (ConfigError, PlacementError, RunFolderError, GenerationError)


@dataclass(frozen=True)
class Layout:
    """Where everything of one reproduction lies.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def model(self) -> Path:
        """Which model it is of."""
        return self.root / "model.json"

    def evaluation(self, evaluation: Evaluation) -> EvaluationFolder:
        """Of one condition."""
        return EvaluationFolder(self.root / "evaluations" / evaluation.name)

    def analysis(self, analysis: Analysis) -> Path:
        """Folder of one table or figure."""
        return self.root / "analysis" / analysis.name

    def made_from(self, analysis: Analysis) -> Path:
        """What an analysis was made from; written last."""
        return self.analysis(analysis) / "made_from.json"


Failures = dict[str, str]
"""Why, by what."""


def check_same_model(layout: Layout, model: Path) -> None:
    """Keep one folder to one model.

    Raises:
        RunFolderError: If it was begun with another one.
    """
    from rsp_rl.models.weights import weights_digest

    weights = weights_digest(model)
    if layout.model.is_file():
        begun = read_json(layout.model)
        if begun.get("weights") != weights:
            raise RunFolderError(
                f"{layout.root} holds the reproduction on another model ({begun.get('model')}); "
                "choose another --output"
            )
    write_json(layout.model, {"model": str(model), "weights": weights})


def carry_out(
    plan: Mapping[str, Iterable[Analysis]],
    model: Path | None,
    layout: Layout,
    engine: EngineOptions,
    data_dir: Path | None = None,
) -> Failures:
    """Evaluate and analyse.

    Args:
        plan: By section.
        model: Hugging Face folder; may be None if the plan evaluates nothing.
        layout: Where to.
        engine: How the model is run.
        data_dir: Folder with the benchmarks' files.

    Returns:
        What failed; empty if nothing did.
    """
    failures: Failures = {}
    needed = evaluations(plan)
    if needed and model is not None:
        failures |= _evaluate(needed, model, layout, engine, data_dir)
    analyses = [analysis for group in plan.values() for analysis in group]
    for number, analysis in enumerate(analyses, 1):
        say(f"[analysis {number}/{len(analyses)}] {analysis.title}")
        if why := _attempt(lambda analysis=analysis: _analyse(analysis, layout)):
            failures[analysis.title] = why
    return failures


def _evaluate(
    needed: list[Evaluation],
    model: Path,
    layout: Layout,
    engine: EngineOptions,
    data_dir: Path | None,
) -> Failures:
    from rsp_rl.evaluation.manifest import is_complete
    from rsp_rl.evaluation.outputs import outcome_line, write_outputs
    from rsp_rl.evaluation.runner import evaluate
    from rsp_rl.inference.engines import SharedEngines

    failures: Failures = {}
    reference = replace(engine, kind="huggingface", tensor_parallel=1, data_parallel=1)
    thoughts = any(evaluation.protocol.law for evaluation in needed)
    with SharedEngines(model, engine, soft_prompts=True, thoughts=thoughts) as engines:

        def make(evaluation: Evaluation) -> None:
            folder = layout.evaluation(evaluation)
            if is_complete(folder.step(0), evaluation.protocol):
                say("done before")
                return
            trained = evaluation.protocol.comparator is not None
            outcome = evaluate(
                *(model, evaluation.protocol, folder.step(0)),
                engine=reference if trained else engine,
                engines=engines,
                data_dir=data_dir,
            )
            say(outcome_line(outcome))
            for benchmark, why in outcome.failed.items():
                say(f"error: {benchmark}: {why}")
                failures[f"evaluation {evaluation.label}, {benchmark}"] = why
            write_outputs(folder)

        for number, evaluation in enumerate(needed, 1):
            say(f"[evaluation {number}/{len(needed)}] {evaluation.label}")
            if why := _attempt(lambda evaluation=evaluation: make(evaluation)):
                failures[f"evaluation {evaluation.label}"] = why
    return failures


def _analyse(analysis: Analysis, layout: Layout) -> None:
    """Make an analysis, unless it was made from the same evaluations in the same way."""
    folder = layout.analysis(analysis)
    made_from = {
        "options": dict(analysis.options),
        "runs": list(analysis.runs),
        "evaluations": {e.name: _state(layout.evaluation(e)) for e in analysis.reads},
    }
    done = layout.made_from(analysis)
    # Runs may have gone on since; and to compare them takes seconds.
    if not analysis.runs and done.is_file() and read_json(done) == made_from:
        say("done before")
        return
    shutil.rmtree(folder, ignore_errors=True)
    folders = [str(layout.evaluation(e).root) for e in analysis.reads] or analysis.runs
    import_module(analysis.module).analyse(folders, folder, **analysis.options)
    write_json(done, made_from)


def _state(folder: EvaluationFolder) -> str:
    """Changes with the evaluation's numbers: more benchmarks, or other verdicts."""
    files = sorted(folder.root.glob("step_*/*.metrics.json"))
    return stable_hash([[file.name, file.read_text()] for file in files], 8).hex()


def _attempt(step: Callable[[], None]) -> str | None:
    """Do one step; what went wrong, in one line."""
    try:
        step()
    except _EXPECTED as error:
        why = str(error)
    except Exception as error:  # out of memory, a full disk: hours of other work must not be lost
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    else:
        return None
    say(f"error: {why}")
    return why
