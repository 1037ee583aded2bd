"""`rsp-rl latent table`: methods that think in hidden states, a row each, beside the paper's row.

Reads what `rsp-rl latent eval` left. Runs of one method are its seeds: they must be alike in all
other settings. Accuracy is the mean over seeds with its 95% interval by Student's t; of a single
seed, the bootstrap's over problems, which says nothing of other seeds. Tokens count thoughts, as
the paper has it; seconds are of the machine and the batch size that each was evaluated with.

Whether the order of the rows is the paper's is answered by pairs: those that are further apart in
the paper than their spreads together, and of these the ones whose difference here is larger than
the half widths of both intervals, put together as those of independent numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.analysis.training_table import t_interval
from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Estimate, percent
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.reading import read_manifest
from rsp_rl.latent.methods import METHODS
from rsp_rl.latent.paper import TABLE_1, TASKS, Reported

#: Of `summary.json`, what is read.
_NEEDED = (
    *("method", "accuracy", "accuracy_low", "accuracy_high", "tokens", "seconds_per_problem"),
    *("thoughts", "problems", "unfinished", "without_answer", "batch_size", "device", "epochs"),
    *("engine", "epochs_done"),
)

#: What may differ between the runs of one method.
_OF_A_SEED = "seed"


@dataclass(frozen=True)
class Evaluated:
    """One evaluation.

    Attributes:
        root: Its folder.
        summary: `summary.json`.
        settings: The training's; empty where the model was a folder without its run.
        fingerprint: Of what was asked.
        trained_on: Digest of the training's problems; None where it is not known.
    """

    root: Path
    summary: dict[str, Any]
    settings: dict[str, Any]
    fingerprint: str
    trained_on: str | None = None

    @property
    def method(self) -> str:
        """Its name."""
        return self.summary["method"]


@dataclass(frozen=True)
class Line:
    """One method.

    Attributes:
        method: Its name.
        of: An evaluation a seed.
    """

    method: str
    of: tuple[Evaluated, ...]

    @property
    def accuracy(self) -> Estimate:
        """Mean with its interval; fractions."""
        if len(self.of) == 1:
            own = self.of[0].summary
            return Estimate(own["accuracy"], own["accuracy_low"], own["accuracy_high"])
        return t_interval(np.array([one.summary["accuracy"] for one in self.of]))

    def mean(self, name: str) -> float:
        """Of another number of the summaries."""
        return float(np.mean([one.summary[name] for one in self.of]))

    @property
    def half_width(self) -> float:
        """Of the accuracy's interval."""
        return (self.accuracy.high - self.accuracy.low) / 2


@dataclass(frozen=True)
class Order:
    """Pairs of methods that differ in the paper, the better one there first.

    Attributes:
        same: In the same order here.
        other: The other way round.
        open: Nearer to each other here than their intervals tell apart.
    """

    same: tuple[tuple[str, str], ...]
    other: tuple[tuple[str, str], ...]
    open: tuple[tuple[str, str], ...]


def analyse(runs: Sequence[str], output: Path, *, task: str | None = None) -> None:
    """Write `latent_table.md`, `.csv`, `.png` and `.svg`, and print the table.

    Args:
        runs: Folders of runs, or of evaluations.
        output: Where to.
        task: Whose numbers of the paper stand beside; None for none.

    Raises:
        ConfigError: If runs of one method are no seeds of one training.
        RunFolderError: If a folder holds no finished evaluation, or they were asked differently.
    """
    lines = tabulate([open_evaluation(Path(run)) for run in runs])
    write_analysis(
        output,
        "latent_table",
        markdown=to_markdown(lines, task),
        csv=to_csv(lines, task),
        figure=draw(lines, task),
    )


def open_evaluation(path: Path) -> Evaluated:
    """The evaluation in a run's folder, or at a path.

    Raises:
        ConfigError: If a run has several.
        RunFolderError: If there is none that is finished, or it is damaged.
    """
    roots = [path]
    if not EvaluationFolder(path).step(0).manifest.is_file():
        found = (path / "evaluation").glob("*/step_0/how.json")
        roots = sorted(file.parents[1] for file in found)
    if len(roots) > 1:
        names = ", ".join(map(str, roots))
        raise ConfigError(f"{path} has several evaluations; name one of {names}")
    folder = EvaluationFolder(roots[0] if roots else path)
    if not folder.summary_json.is_file() or not folder.step(0).manifest.is_file():
        raise RunFolderError(
            f"{path} holds no finished evaluation of a model that thinks; run `rsp-rl latent eval` "
            "on it first"
        )
    summary, manifest = read_json(folder.summary_json), read_manifest(folder.step(0))
    if lacking := [name for name in _NEEDED if name not in summary]:
        raise RunFolderError(f"{folder.summary_json} lacks {lacking[0]!r}; evaluate again")
    if summary["method"] not in METHODS:
        raise RunFolderError(
            f"{folder.summary_json}: method {summary['method']!r} is none of {', '.join(METHODS)}"
        )
    return Evaluated(
        *(folder.root, summary, manifest.get("training", {}), manifest["fingerprint"]),
        manifest.get("trained_on"),
    )


def tabulate(evaluated: Sequence[Evaluated]) -> list[Line]:
    """Rows in the paper's order.

    Raises:
        ConfigError: If two of one method have the same seed, or differ in another setting or in
            the problems that they were trained on.
        RunFolderError: If two were not asked the same.
    """
    first = evaluated[0]
    for one in evaluated:
        if one.fingerprint != first.fingerprint:
            raise RunFolderError(
                f"{first.root} and {one.root} were not asked the same problems with the same "
                "--thoughts (the fingerprints in their step_0/how.json differ); evaluate one of "
                "them again as the other"
            )
    lines = []
    for method in TABLE_1:
        of = tuple(one for one in evaluated if one.method == method)
        if not of:
            continue
        for a, b in combinations(of, 2):
            _check_seeds(a, b)
        lines.append(Line(method, of))
    return lines


def _check_seeds(a: Evaluated, b: Evaluated) -> None:
    differ = sorted(
        name
        for name in a.settings.keys() | b.settings.keys()
        if a.settings.get(name) != b.settings.get(name)
    )
    if others := [name for name in differ if name != _OF_A_SEED]:
        name = others[0]
        raise ConfigError(
            f"{a.root} and {b.root} are both of method {a.method} and differ in more than their "
            f"seed: {name} is {a.settings.get(name)!r} and {b.settings.get(name)!r}; give one of "
            "them in a table of its own"
        )
    if a.trained_on and b.trained_on and a.trained_on != b.trained_on:
        raise ConfigError(
            f"{a.root} and {b.root} are both of method {a.method} and were trained on other "
            "problems (trained_on in their step_0/how.json); give one of them in a table of its own"
        )
    if not differ:
        raise ConfigError(
            f"{a.root} and {b.root} are both of method {a.method} and of seed "
            f"{a.settings.get(_OF_A_SEED)}; give one of them"
        )


def paper_order(lines: Sequence[Line], task: str) -> Order:
    """See the module."""
    found: dict[str, list[tuple[str, str]]] = {"same": [], "other": [], "open": []}
    for a, b in combinations(lines, 2):
        better, worse = sorted((a, b), key=lambda line: -TABLE_1[line.method][task].accuracy)
        there = [TABLE_1[line.method][task] for line in (better, worse)]
        apart = there[0].accuracy - there[1].accuracy
        # As decimals of the paper's own precision: 0.1 is no more than 0.1.
        if round(apart - sum(cell.spread or 0 for cell in there), 6) <= 0:
            continue
        here = better.accuracy.value - worse.accuracy.value
        told = abs(here) > math.hypot(better.half_width, worse.half_width)
        verdict = "open" if not told else "same" if here > 0 else "other"
        found[verdict].append((better.method, worse.method))
    return Order(*(tuple(found[name]) for name in ("same", "other", "open")))


def to_markdown(lines: Sequence[Line], task: str | None) -> str:
    """The table, the order, and what a reader must know."""
    head = ["method", "seeds", "accuracy (%)", "tokens", "of these thoughts", "s a problem"]
    head += ["paper (%)", "paper's tokens"] if task else []
    shown = ["# Thinking in hidden states, by method", "", *markdown_head(head)]
    for line in lines:
        cells = [
            METHODS[line.method].row,
            str(len(line.of)),
            percent(line.accuracy),
            f"{line.mean('tokens'):.1f}",
            f"{line.mean('thoughts'):.1f}",
            f"{line.mean('seconds_per_problem'):.3g}",
        ]
        if task:
            there = TABLE_1[line.method][task]
            cells += [_reported(there), f"{there.tokens:.1f}"]
        shown.append(markdown_row(cells))
    notes = [*_notes(lines)]
    if task is None:
        notes.append(f"With --task, one of {', '.join(TASKS)}, the paper's numbers stand beside.")
    elif len(lines) > 1:
        notes += _order_notes(lines, task)
    return "\n".join([*shown, "", *(f"- {note}" for note in notes)]) + "\n"


def _reported(cell: Reported) -> str:
    return f"{cell.accuracy:.1f}" + ("" if cell.spread is None else f" ±{cell.spread:.1f}")


def _notes(lines: Sequence[Line]) -> Iterator[str]:
    evaluated = [one for line in lines for one in line.of]
    problems = evaluated[0].summary["problems"]
    yield (
        f"{problems:,} problems each; brackets are 95% intervals, over seeds by Student's t, of a "
        "single seed over problems."
    )
    for name, what in (("batch_size", "batch sizes"), ("device", "devices"), ("engine", "engines")):
        if len(values := {str(one.summary[name]) for one in evaluated}) > 1:
            yield f"Seconds do not compare: {what} are {', '.join(sorted(values))}."
    if len({one.trained_on for one in evaluated if one.trained_on}) > 1:
        yield "Not all were trained on the same problems."
    for name, by_method in _unlike(lines).items():
        values = ", ".join(f"{METHODS[m].row} {value}" for m, value in by_method.items())
        yield f"Not all were trained with the same {name}: {values}."
    for one in evaluated:
        done, wanted = one.summary["epochs_done"], one.summary["epochs"]
        if done is not None and wanted is not None and done < wanted:
            yield f"{one.root}: its training had done {done} of {wanted} epochs."
    for line in lines:
        unfinished = sum(one.summary["unfinished"] for one in line.of)
        without = sum(one.summary["without_answer"] for one in line.of)
        if unfinished or without:
            yield (
                f"{METHODS[line.method].row}: {unfinished} answers cut off at the token limit, "
                f"{without} without a line of an answer; they count as wrong."
            )


def _unlike(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Settings besides method and seed that are not the same in all rows, by method."""
    settings = {line.method: line.of[0].settings for line in lines if line.of[0].settings}
    names = {name for own in settings.values() for name in own} - {"method", _OF_A_SEED}
    return {
        name: {method: own.get(name) for method, own in settings.items()}
        for name in sorted(names)
        if len({str(own.get(name)) for own in settings.values()}) > 1
    }


def _order_notes(lines: Sequence[Line], task: str) -> Iterator[str]:
    def row(method: str) -> str:
        return METHODS[method].row.removeprefix("- ")

    def pairs(of: Sequence[tuple[str, str]]) -> str:
        return "; ".join(f"{row(better)} over {row(worse)}" for better, worse in of)

    def in_order(values: Mapping[str, float]) -> str:
        ordered = sorted(values, key=lambda method: -values[method])
        text = row(ordered[0])
        for before, method in pairwise(ordered):
            text += f"{' =' if values[before] == values[method] else ','} {row(method)}"
        return text

    there = {line.method: TABLE_1[line.method][task].accuracy for line in lines}
    yield f"Order here: {in_order({line.method: line.accuracy.value for line in lines})}."
    yield f"Order in the paper ({task}): {in_order(there)}."
    order = paper_order(lines, task)
    told = len(order.same) + len(order.other)
    yield (
        f"Of {told + len(order.open)} pairs that the paper tells apart, {len(order.same)} are in "
        f"its order here, {len(order.other)} the other way round, {len(order.open)} not told apart."
    )
    if order.other:
        yield f"The paper has, and here it is the other way round: {pairs(order.other)}."
    if order.open:
        yield f"The paper has, and here it is not told apart: {pairs(order.open)}."


def to_csv(lines: Sequence[Line], task: str | None) -> str:
    """One row a method; fractions."""

    def cells(line: Line) -> list[object]:
        estimate = line.accuracy
        there = TABLE_1[line.method][task] if task else None
        seeds = " ".join(str(one.settings.get(_OF_A_SEED, "")) for one in line.of)
        return [
            *(line.method, len(line.of), seeds, estimate.value, estimate.low, estimate.high),
            *(line.mean(name) for name in ("tokens", "thoughts", "seconds_per_problem")),
            "" if there is None else there.accuracy / 100,
            "" if there is None or there.spread is None else there.spread / 100,
            "" if there is None else there.tokens,
        ]

    return csv_text(
        "method,runs,seeds,accuracy,low,high,tokens,thoughts,seconds_per_problem,"
        "paper_accuracy,paper_spread,paper_tokens",
        map(cells, lines),
    )


def draw(lines: Sequence[Line], task: str | None) -> Figure:
    """Accuracy by method with its interval, the seeds as dots, the paper's as diamonds."""
    figure, (axis,) = figures.panels(1, 1, (7.5, 0.5 * len(lines) + 1.6))
    for place, line in enumerate(reversed(lines)):
        value, low, high = (
            100 * x for x in (line.accuracy.value, line.accuracy.low, line.accuracy.high)
        )
        axis.barh(place, value, 0.6, color=figures.colour(0), alpha=0.6)
        axis.hlines(place, low, high, color=figures.colour(0), linewidth=2)
        seeds = [100 * one.summary["accuracy"] for one in line.of]
        axis.plot(seeds, [place] * len(seeds), "o", markersize=4, color=figures.colour(0))
        if task:
            there = TABLE_1[line.method][task].accuracy
            axis.plot(there, place, "D", markersize=6, color=figures.colour(1))
    axis.set_yticks(range(len(lines)), [METHODS[line.method].row for line in reversed(lines)])
    axis.set_xlim(0, 101)
    axis.grid(axis="y", visible=False)
    beside = f"; diamonds: the paper's, {task}" if task else ""
    axis.set_title(f"Accuracy (%), 95% interval, a dot a seed{beside}", fontsize=10)
    return figure
