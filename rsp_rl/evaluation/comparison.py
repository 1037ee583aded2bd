"""Estimates of several runs on the same problems, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.metrics import RESAMPLES, bootstrap_means, interval
from rsp_rl.evaluation.reading import read_groups, read_problems
from rsp_rl.evaluation.summary import Summary

HEADLINE = "headline"


@dataclass(frozen=True)
class Run:
    """One method: a training run, or several that differ in their seed.

    Attributes:
        name: As shown.
        folders: Evaluation of each training seed.
        summaries: What those hold.
    """

    name: str
    folders: tuple[EvaluationFolder, ...]
    summaries: tuple[Summary, ...]
    _accuracies: dict[tuple[int, str], np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def headline(self) -> dict[int, float]:
        """Mean headline over the seeds, by step; only steps that all seeds have completed."""
        first, *others = (summary.headline for summary in self.summaries)
        steps = [step for step in first if all(step in other for other in others)]
        return {
            step: float(np.mean([summary.headline[step].accuracy for summary in self.summaries]))
            for step in steps
        }

    @property
    def peak_step(self) -> int:
        """Step with the highest headline, the first of equals."""
        return max(self.headline, key=self.headline.__getitem__)

    def has(self, step: int, benchmark: str) -> bool:
        """Whether every seed has this benchmark at this step."""
        return all(benchmark in summary.metrics.get(step, {}) for summary in self.summaries)

    def accuracies(self, step: int, benchmark: str) -> np.ndarray:
        """Accuracy by training seed and problem (S x P), problems sorted by id.

        Kept, because the tables and the curve need the same steps.

        Raises:
            RunFolderError: If a samples file is damaged or does not hold the problems asked.
        """
        if (step, benchmark) not in self._accuracies:
            rows = [_accuracies(folder, step, benchmark) for folder in self.folders]
            self._accuracies[step, benchmark] = np.array(rows)
        return self._accuracies[step, benchmark]


def _accuracies(folder: EvaluationFolder, step: int, benchmark: str) -> list[float]:
    groups = read_groups(folder, folder.step(step), benchmark)
    return [sum(s["correct"] for s in group) / len(group) for group in groups.values()]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval; fractions."""

    value: float
    low: float
    high: float


def percent(estimate: Estimate, sign: str = "") -> str:
    """A value with its interval, in percent; `sign` is `+` for differences."""
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


@dataclass(frozen=True)
class Cell:
    """A run on one benchmark, and how far it is above the first run (`None` for the first)."""

    accuracy: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class Table:
    """Runs at a choice of steps.

    Attributes:
        steps: The chosen step by run.
        cells: By run, then by benchmark; `HEADLINE` comes last.
    """

    steps: dict[str, int]
    cells: dict[str, dict[str, Cell]]


@dataclass(frozen=True)
class Comparison:
    """Everything that `rsp-rl compare` shows.

    Attributes:
        runs: In the order given.
        peaks: Each run at its own peak step.
        common: All runs at one step, `None` if no step is complete in all.
        curves: Headline by run and step.
    """

    runs: list[Run]
    peaks: Table
    common: Table | None
    curves: dict[str, dict[int, Estimate]]


def compare(runs: Sequence[Run], *, seed: int = 0) -> Comparison:
    """Compare runs that were evaluated in the same way.

    Args:
        runs: The first is what the others are compared with.
        seed: Of the bootstrap.

    Raises:
        ConfigError: If two runs have the same name.
        RunFolderError: If runs were evaluated under different protocols, templates or problems, or
            a run has no step with a complete headline.
    """
    _check(runs)
    common_steps = [step for step in runs[0].headline if all(step in r.headline for r in runs)]
    common = None
    if common_steps:
        best = max(common_steps, key=lambda step: sum(r.headline[step] for r in runs))
        common = _table([(r, best) for r in runs], seed)
    return Comparison(
        runs=list(runs),
        peaks=_table([(r, r.peak_step) for r in runs], seed),
        common=common,
        curves=_curves(runs, seed),
    )


def _check(runs: Sequence[Run]) -> None:
    names = [r.name for r in runs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"two runs are called {repeated[0]!r}; name them: NAME=DIR")
    reference, first = runs[0].folders[0], runs[0].summaries[0]
    asked = {name: read_problems(reference, name) for name in first.benchmarks}
    for r in runs:
        for folder, summary in zip(r.folders, r.summaries, strict=True):
            if summary.manifest["fingerprint"] != first.manifest["fingerprint"]:
                raise RunFolderError(
                    f"{reference.root} and {folder.root} were evaluated under different protocols "
                    "or templates (the fingerprints in their steps' how.json differ); evaluate one "
                    "of them again under the other's"
                )
            if summary.headline_benchmarks != first.headline_benchmarks:
                raise RunFolderError(
                    f"{reference.root} and {folder.root} average different benchmarks "
                    f"({', '.join(first.headline_benchmarks)} and "
                    f"{', '.join(summary.headline_benchmarks)}, see their steps' how.json); "
                    "evaluate one of them again under the other's protocol"
                )
            for name in set(asked).intersection(summary.benchmarks):
                if read_problems(folder, name) != asked[name]:
                    raise RunFolderError(
                        f"{reference.problems(name)} and {folder.problems(name)} differ; only runs "
                        "that were asked the same problems can be compared"
                    )
        if not r.headline:
            raise RunFolderError(
                f"run {r.name!r} ({', '.join(str(folder.root) for folder in r.folders)}) has no "
                f"step at which all of {', '.join(first.headline_benchmarks)} are done in every "
                "training seed; evaluate it again to complete one"
            )


def _curves(runs: Sequence[Run], seed: int) -> dict[str, dict[int, Estimate]]:
    curves: dict[str, dict[int, Estimate]] = {r.name: {} for r in runs}
    for step in sorted({step for r in runs for step in r.headline}):
        present = [r for r in runs if step in r.headline]
        in_headline = present[0].summaries[0].headline_benchmarks
        tables = {r.name: {n: r.accuracies(step, n) for n in in_headline} for r in present}
        for name, row in estimate(tables, in_headline, seed).items():
            curves[name][step] = row[HEADLINE].accuracy
    return curves


def _table(chosen: Sequence[tuple[Run, int]], seed: int) -> Table:
    in_headline = chosen[0][0].summaries[0].headline_benchmarks
    others = sorted({name for r, _ in chosen for s in r.summaries for name in s.benchmarks})
    shared = [n for n in others if n not in in_headline and all(r.has(s, n) for r, s in chosen)]
    names = (*in_headline, *shared)
    tables = {r.name: {name: r.accuracies(step, name) for name in names} for r, step in chosen}
    return Table(
        steps={r.name: step for r, step in chosen}, cells=estimate(tables, in_headline, seed)
    )


def estimate(
    tables: Mapping[str, Mapping[str, np.ndarray]], in_headline: Sequence[str], seed: int = 0
) -> dict[str, dict[str, Cell]]:
    """Accuracies with intervals and differences to the first run, from one joint bootstrap.

    A resample draws the problems of each benchmark, the same for all runs, and the training seeds
    of each run, the same for all benchmarks: a seed is one model.

    Args:
        tables: Accuracy by training seed and problem (S x P), by run and then by benchmark; all
            runs have the same benchmarks and problems.
        in_headline: Benchmarks that `HEADLINE`, which the result has last, averages.
        seed: Of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    benchmarks = list(next(iter(tables.values())))
    weights = [_seed_weights(len(table[benchmarks[0]]), rng) for table in tables.values()]
    values: list[dict[str, float]] = [{} for _ in tables]
    resampled: list[dict[str, np.ndarray]] = [{} for _ in tables]
    for benchmark in benchmarks:
        tables_SP = [table[benchmark] for table in tables.values()]
        means = bootstrap_means(np.concatenate(tables_SP), rng)
        starts = np.cumsum([len(table) for table in tables_SP])[:-1]
        for i, means_S in enumerate(np.split(means, starts, axis=1)):
            values[i][benchmark] = float(tables_SP[i].mean())
            resampled[i][benchmark] = (means_S * weights[i]).sum(axis=1)
    for value, draws in zip(values, resampled, strict=True):
        value[HEADLINE] = float(np.mean([value[name] for name in in_headline]))
        draws[HEADLINE] = np.mean([draws[name] for name in in_headline], axis=0)
    return {
        run: {
            name: Cell(
                accuracy=Estimate(values[i][name], *interval(resampled[i][name])),
                difference=None
                if i == 0
                else Estimate(
                    values[i][name] - values[0][name],
                    *interval(resampled[i][name] - resampled[0][name]),
                ),
            )
            for name in values[i]
        }
        for i, run in enumerate(tables)
    }


def _seed_weights(seeds: int, rng: np.random.Generator) -> np.ndarray:
    """How much each training seed weighs in each resample: `RESAMPLES` x S, rows sum to 1."""
    return rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
