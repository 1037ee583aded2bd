"""Finished evaluations as the conditions of a figure: without soft prompts, and with them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.evaluation.folder import EvaluationFolder, Sample, StepFolder
from rsp_rl.evaluation.protocol import BenchmarkPlan, Protocol
from rsp_rl.evaluation.reading import (
    AskedProblem,
    read_groups,
    read_manifest,
    read_metrics,
    read_problems,
)

BASELINE = "baseline"


@dataclass(frozen=True)
class Condition:
    """One model's finished evaluation under one way of using soft prompts.

    Attributes:
        name: As shown.
        step: The evaluation.
        manifest: Its `how.json`.
        protocol: The protocol of it.
        benchmarks: What is done, in the protocol's order.
    """

    name: str
    step: StepFolder
    manifest: dict[str, Any]
    protocol: Protocol
    benchmarks: tuple[str, ...]

    @property
    def root(self) -> Path:
        """Folder of the evaluation."""
        return self.step.root

    @property
    def model(self) -> str:
        """Name of the model: its folder's, or the hub's where it lies in the hub's cache."""
        path = Path(self.manifest["model"])
        cached = [part for part in path.parts if part.startswith("models--")]
        return cached[-1].rpartition("--")[2] if cached else path.name

    def plan(self, benchmark: str) -> BenchmarkPlan:
        """How a benchmark was asked."""
        return next(plan for plan in self.protocol.benchmarks if plan.benchmark == benchmark)

    def problems(self, benchmark: str) -> dict[str, AskedProblem]:
        """What was asked, by id, in order."""
        return read_problems(EvaluationFolder(self.root.parent), benchmark)

    def groups(self, benchmark: str) -> dict[str, list[Sample]]:
        """Samples of each problem in order, problems sorted by id.

        Raises:
            RunFolderError: If a file is damaged or does not hold the problems asked.
        """
        return read_groups(EvaluationFolder(self.root.parent), self.step, benchmark)


def position_name(protocol: Protocol) -> str:
    """A condition by where its soft prompts stand, or by what made them if they stand nowhere."""
    if protocol.comparator is not None:
        return protocol.comparator.method
    if protocol.rsp.has_added_rows:
        return protocol.rsp.law
    return protocol.rsp.position if protocol.rsp.enabled else BASELINE


def draw_name(protocol: Protocol) -> str:
    """A condition by how its samples come to differ: by their draws, by sampling, or both."""
    greedy = all(plan.temperature == 0 for plan in protocol.benchmarks)
    draws = f"{protocol.rsp.mode} RSP" if protocol.rsp.enabled else BASELINE
    if protocol.comparator is not None:
        draws = protocol.comparator.method
    elif protocol.rsp.has_added_rows:
        draws = f"{protocol.rsp.mode} {protocol.rsp.law}"
    return f"{draws}, {'greedy' if greedy else 'sampled'}"


def open_conditions(texts: Sequence[str], name_of: Callable[[Protocol], str]) -> list[Condition]:
    """Open what a command line names.

    Args:
        texts: `DIR` or `NAME=DIR` each: an evaluation's folder with one step, or a step's.
        name_of: The default name, by the protocol.

    Raises:
        RunFolderError: If a folder is none, or nothing in it is finished.
    """
    return [_open(text, name_of) for text in texts]


def _open(text: str, name_of: Callable[[Protocol], str]) -> Condition:
    name, equals, path = text.partition("=")
    if not equals or Path(text).is_dir():
        name, path = "", text
    step = _find_step(Path(path))
    manifest = read_manifest(step)
    if lacking := [key for key in ("model", "weights") if key not in manifest]:
        raise RunFolderError(f"{step.manifest} lacks {lacking[0]!r}; evaluate again")
    try:
        protocol = Protocol.from_dict(manifest["protocol"])
    except ConfigError as error:
        raise RunFolderError(f"{step.manifest}: {error}; evaluate again") from error
    finished = read_metrics(step)
    benchmarks = tuple(p.benchmark for p in protocol.benchmarks if p.benchmark in finished)
    if not benchmarks:
        raise RunFolderError(f"{step.root} holds no finished benchmark; finish its evaluation")
    return Condition(name or name_of(protocol), step, manifest, protocol, benchmarks)


def _find_step(path: Path) -> StepFolder:
    if StepFolder(path).manifest.is_file():
        return StepFolder(path)
    steps = EvaluationFolder(path).steps()
    if not steps:
        raise RunFolderError(
            f"{path} is no evaluation (it holds no step_N); make one with `rsp-rl generate` or "
            "`rsp-rl analyze evaluate`"
        )
    if len(steps) > 1:
        raise RunFolderError(
            f"{path} holds {len(steps)} steps; name one of them, such as {steps[max(steps)].root}"
        )
    (step,) = steps.values()
    return step


def check_names(conditions: Sequence[Condition]) -> None:
    """Refuse two conditions of one name.

    Raises:
        ConfigError: Naming both folders.
    """
    seen: dict[str, Condition] = {}
    for condition in conditions:
        if (other := seen.setdefault(condition.name, condition)) is not condition:
            raise ConfigError(
                f"{other.root} and {condition.root} are both called {condition.name!r}; name them: "
                "NAME=DIR"
            )


def shared_benchmarks(
    conditions: Sequence[Condition], *, may_differ: Collection[str] = ()
) -> list[str]:
    """Benchmarks that all conditions have, asked in a way that lets their numbers be compared.

    Args:
        conditions: One at least.
        may_differ: Of `model`, `template`, `max_tokens`, `stop`, `samples`, `temperature`, `top_p`
            and `top_k`, what the figure itself varies. Soft prompts may always differ.

    Raises:
        RunFolderError: If there is no such benchmark, or one was asked in different ways.
    """
    first, *others = conditions
    shared = [name for name in first.benchmarks if all(name in c.benchmarks for c in others)]
    if not shared:
        raise RunFolderError(
            f"no benchmark is finished in all of {', '.join(str(c.root) for c in conditions)}"
        )
    for benchmark in shared:
        for other in others:
            _check_same(first, other, benchmark, may_differ)
    return shared


def _check_same(a: Condition, b: Condition, benchmark: str, may_differ: Collection[str]) -> None:
    of_a, of_b = _settings(a, benchmark), _settings(b, benchmark)
    for name in of_a.keys() - set(may_differ):
        if of_a[name] != of_b[name]:
            raise RunFolderError(
                f"{a.root} and {b.root} differ in more than their soft prompts: {benchmark} was "
                f"asked with {name} {of_a[name]!r} and {of_b[name]!r}; evaluate one of them again"
            )
    if a.problems(benchmark) != b.problems(benchmark):
        raise RunFolderError(
            f"{a.root} and {b.root} were asked different problems of {benchmark}; only equal ones "
            "can be compared"
        )


def _settings(condition: Condition, benchmark: str) -> dict[str, object]:
    plan, protocol = condition.plan(benchmark), condition.protocol
    return {
        "model": (condition.model, condition.manifest["weights"]),
        "template": protocol.template,
        "max_tokens": protocol.max_tokens_of(benchmark),
        "stop": protocol.stop,
        "samples": plan.samples,
        "temperature": plan.temperature,
        "top_p": plan.top_p,
        "top_k": plan.top_k,
    }
