"""A protocol's modes: the same problems asked in several ways, a folder each, one engine for all.

The folder of an evaluation with modes holds one of the usual kind a mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.console.screen import quiet, say
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.outputs import outcome_line, write_outputs
from rsp_rl.evaluation.protocol import Protocol, load_modes
from rsp_rl.evaluation.runner import check_comparator, check_thinking, evaluate
from rsp_rl.inference.engines import SharedEngines
from rsp_rl.inference.prompts import stable_hash
from rsp_rl.inference.requests import EngineOptions, Engines


@dataclass(frozen=True)
class Mode:
    """One way of asking, and where its evaluation lies.

    Attributes:
        name: Empty for a protocol without modes.
        protocol: What is asked.
        folder: Where everything goes.
    """

    name: str
    protocol: Protocol
    folder: EvaluationFolder

    def of(self, step: int) -> str:
        """A step of it, as messages call it."""
        return f"step {step}, {self.name}" if self.name else f"step {step}"


def modes_in(root: Path, protocols: Mapping[str, Protocol]) -> list[Mode]:
    """Modes under an evaluation's folder.

    Args:
        root: The folder.
        protocols: By mode, as `load_modes` gives them.
    """
    return [
        Mode(name, protocol, EvaluationFolder(root / name if name else root))
        for name, protocol in protocols.items()
    ]


def results_name(name_or_path: str | Path, overrides: Sequence[str]) -> str:
    """The folder's name for a protocol's results: a changed protocol is another one.

    Its results do not mix with the original's. Which modes are asked for changes none of them.

    Args:
        name_or_path: See `load_modes`.
        overrides: See `load_modes`.

    Raises:
        ConfigError: As `load_modes`.
    """
    asked = load_modes(name_or_path, overrides)
    overrides = [text for text in overrides if not text.startswith("modes=")]
    protocols = _all_that_can(name_or_path, overrides) or asked
    name = _common_name(protocols)
    if not overrides or name != _common_name(load_modes(name_or_path)):
        return name
    fingerprints = {mode: protocol.fingerprint() for mode, protocol in protocols.items()}
    plain = [*fingerprints] == [""]
    digest = fingerprints[""] if plain else stable_hash(fingerprints, 8).hex()
    return f"{name}-{digest[:6]}"


def _all_that_can(name_or_path: str | Path, overrides: Sequence[str]) -> dict[str, Protocol]:
    """Modes that can have some overrides; those that cannot matter only where they are asked."""
    found = {}
    for mode in load_modes(name_or_path):
        try:
            chosen = [f"modes=['{mode}']"] if mode else []
            found |= load_modes(name_or_path, [*overrides, *chosen])
        except ConfigError:
            continue
    return found


def _common_name(protocols: Mapping[str, Protocol]) -> str:
    mode, protocol = next(iter(protocols.items()))
    return protocol.name.removesuffix(f".{mode}") if mode else protocol.name


@contextmanager
def shared_engines(modes: Sequence[Mode], model: Path, engine: EngineOptions) -> Iterator[Engines]:
    """Engines that answer in all of some modes; they start when they are first asked.

    Args:
        modes: One at least.
        model: Hugging Face folder.
        engine: How it is run.
    """
    engines = SharedEngines(
        *(model, engine),
        soft_prompts=any(mode.protocol.rsp.enabled for mode in modes),
        thoughts=any(mode.protocol.law is not None for mode in modes),
    )
    try:
        yield engines
    finally:
        with quiet(modes[0].folder.engine_log):
            engines.close()


def evaluate_model(
    modes: Sequence[Mode], model: Path, engine: EngineOptions, data_dir: Path | None
) -> list[str]:
    """Evaluate a model that is no checkpoint in all modes; it is their step 0.

    Args:
        modes: One at least.
        model: Hugging Face folder.
        engine: How it is run.
        data_dir: Folder with the benchmarks' files, if they are local.

    Returns:
        What failed, a line each.

    Raises:
        ConfigError: As `evaluate`.
        RunFolderError: As `evaluate`.
    """
    for mode in modes:  # a bad setting must not show after the others' hours
        check_thinking(mode.protocol, model, engine)
        check_comparator(mode.protocol, model, engine)
    failures = []
    with shared_engines(modes, model, engine) as engines:
        for mode in modes:
            outcome = evaluate(
                *(model, mode.protocol, mode.folder.step(0)),
                engine=engine,
                engines=engines,
                data_dir=data_dir,
            )
            prefix = f"{mode.name}: " if mode.name else ""
            say(prefix + outcome_line(outcome))
            write_outputs(mode.folder)
            where = f"{mode.name}, " if mode.name else ""
            failures += [f"{where}{name}: {why}" for name, why in outcome.failed.items()]
    return failures
