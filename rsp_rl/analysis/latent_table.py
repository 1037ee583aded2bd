"""`rsp-rl latent table`: methods that think in hidden states, a row each, beside the paper's row.

Reads what `rsp-rl latent eval` left. A method that was trained with SIM-CoT's decoder
(`step_decoder`) is a row of its own, below the one without, and has no number of the paper's. Runs
of one row are its seeds: they must be alike in all other settings that the method reads. Accuracy
is the mean over seeds with its 95% interval by Student's t; of a single seed, the bootstrap's over
problems, which says nothing of other seeds. Tokens count thoughts, as the paper has it; seconds
are of the machine and the batch size that each was evaluated with.

Whether the order of the rows is the paper's is answered by pairs: those that are further apart in
the paper than their spreads together, and of these the ones whose difference here is larger than
the half widths of both intervals, put together as those of independent numbers. Of a row that
the paper has not, it is said by the same measure which others it is above and below.
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
from rsp_rl.latent.methods import BY_TOKEN, METHODS, THOUGHTS
from rsp_rl.latent.paper import ROWS, STEP_DECODER, TASKS, Reported, TableRow

#: Of `summary.json`, what is read.
_NEEDED = (
    *("method", "accuracy", "accuracy_low", "accuracy_high", "tokens", "seconds_per_problem"),
    *("thoughts", "problems", "unfinished", "without_answer", "batch_size", "device", "epochs"),
    *("engine", "epochs_done"),
)

#: What may differ between the runs of one row.
_OF_A_SEED = "seed"

#: What a row is known by, besides its method.
_DECODER = "step_decoder"

#: What no method but iCoT reads.
_OF_ICOT = ("icot_tokens_per_epoch", "icot_smoothing")


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
    def key(self) -> str:
        """Of its row in `ROWS`."""
        return self.summary["method"] + (STEP_DECODER if self.settings.get(_DECODER) else "")

    @property
    def read(self) -> dict[str, Any]:
        """Those of the settings that its method reads."""
        others = () if METHODS[self.summary["method"]].removal == BY_TOKEN else _OF_ICOT
        return {name: value for name, value in self.settings.items() if name not in others}


@dataclass(frozen=True)
class Line:
    """One row of the table.

    Attributes:
        row: What it is of.
        of: An evaluation a seed.
    """

    row: TableRow
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

    def over(self, other: Line) -> float:
        """Difference of the accuracies; 0 where the intervals do not tell them apart."""
        apart = self.accuracy.value - other.accuracy.value
        return apart if abs(apart) > math.hypot(self.half_width, other.half_width) else 0.0


@dataclass(frozen=True)
class Order:
    """Pairs of rows that differ in the paper, by their keys, the better one there first.

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
        ConfigError: If runs of one row are no seeds of one training.
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
    evaluated = Evaluated(
        *(folder.root, summary, manifest.get("training", {}), manifest["fingerprint"]),
        manifest.get("trained_on"),
    )
    if evaluated.key not in ROWS:
        raise RunFolderError(
            f"{folder.summary_json}: method {evaluated.key!r} is none of {', '.join(ROWS)}"
        )
    return evaluated


def tabulate(evaluated: Sequence[Evaluated]) -> list[Line]:
    """Rows in the paper's order.

    Raises:
        ConfigError: If two of one row have the same seed, or differ in another setting or in
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
    for row in ROWS.values():
        of = tuple(one for one in evaluated if one.key == row.key)
        if not of:
            continue
        for a, b in combinations(of, 2):
            _check_seeds(a, b)
        lines.append(Line(row, of))
    return lines


def _check_seeds(a: Evaluated, b: Evaluated) -> None:
    differ = sorted(
        name for name in a.read.keys() | b.read.keys() if a.read.get(name) != b.read.get(name)
    )
    if others := [name for name in differ if name != _OF_A_SEED]:
        name = others[0]
        raise ConfigError(
            f"{a.root} and {b.root} are both of method {a.key} and differ in more than their "
            f"seed: {name} is {a.settings.get(name)!r} and {b.settings.get(name)!r}; give one of "
            "them in a table of its own"
        )
    if a.trained_on and b.trained_on and a.trained_on != b.trained_on:
        raise ConfigError(
            f"{a.root} and {b.root} are both of method {a.key} and were trained on other "
            "problems (trained_on in their step_0/how.json); give one of them in a table of its own"
        )
    if not differ:
        raise ConfigError(
            f"{a.root} and {b.root} are both of method {a.key} and of seed "
            f"{a.settings.get(_OF_A_SEED)}; give one of them"
        )


def paper_order(lines: Sequence[Line], task: str) -> Order:
    """See the module."""
    found: dict[str, list[tuple[str, str]]] = {"same": [], "other": [], "open": []}
    for a, b in combinations([line for line in lines if task in line.row.reported], 2):
        better, worse = sorted((a, b), key=lambda line: -line.row.reported[task].accuracy)
        there = [line.row.reported[task] for line in (better, worse)]
        apart = there[0].accuracy - there[1].accuracy
        # As decimals of the paper's own precision: 0.1 is no more than 0.1.
        if round(apart - sum(cell.spread or 0 for cell in there), 6) <= 0:
            continue
        here = better.over(worse)
        verdict = "open" if not here else "same" if here > 0 else "other"
        found[verdict].append((better.row.key, worse.row.key))
    return Order(*(tuple(found[name]) for name in ("same", "other", "open")))


def to_markdown(lines: Sequence[Line], task: str | None) -> str:
    """The table, the order, and what a reader must know."""
    head = ["method", "seeds", "accuracy (%)", "tokens", "of these thoughts", "s a problem"]
    head += ["paper (%)", "paper's tokens"] if task else []
    shown = ["# Thinking in hidden states, by method", "", *markdown_head(head)]
    for line in lines:
        cells = [
            line.row.label,
            str(len(line.of)),
            percent(line.accuracy),
            f"{line.mean('tokens'):.1f}",
            f"{line.mean('thoughts'):.1f}",
            f"{line.mean('seconds_per_problem'):.3g}",
        ]
        if task:
            there = line.row.reported.get(task)
            cells += ["–", "–"] if there is None else [_reported(there), f"{there.tokens:.1f}"]
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
    for name, by_row in _unlike(lines).items():
        values = ", ".join(f"{ROWS[key].label} {value}" for key, value in by_row.items())
        yield f"Not all were trained with the same {name}: {values}."
    for line in lines:
        if weight := line.of[0].settings.get(_DECODER):
            yield f"{line.row.name}: its loss has the weight {weight:g} ({_DECODER})."
    for one in evaluated:
        if not one.settings and METHODS[one.key].filler == THOUGHTS:
            yield f"{one.root}: its training is not known, nor whether it had SIM-CoT's decoder."
        done, wanted = one.summary["epochs_done"], one.summary["epochs"]
        if done is not None and wanted is not None and done < wanted:
            yield f"{one.root}: its training had done {done} of {wanted} epochs."
    for line in lines:
        unfinished = sum(one.summary["unfinished"] for one in line.of)
        without = sum(one.summary["without_answer"] for one in line.of)
        if unfinished or without:
            yield (
                f"{line.row.label}: {unfinished} answers cut off at the token limit, "
                f"{without} without a line of an answer; they count as wrong."
            )


def _unlike(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Settings besides those of a row and a seed that are not the same in all rows, by row."""
    settings = {line.row.key: line.of[0].settings for line in lines if line.of[0].settings}
    names = {name for own in settings.values() for name in own}
    names -= {"method", _DECODER, _OF_A_SEED, *_OF_ICOT}
    return {
        name: {key: own.get(name) for key, own in settings.items()}
        for name in sorted(names)
        if len({str(own.get(name)) for own in settings.values()}) > 1
    }


def _order_notes(lines: Sequence[Line], task: str) -> Iterator[str]:
    def pairs(of: Sequence[tuple[str, str]]) -> str:
        return "; ".join(f"{ROWS[better].name} over {ROWS[worse].name}" for better, worse in of)

    def in_order(values: Mapping[str, float]) -> str:
        ordered = sorted(values, key=lambda name: -values[name])
        text = ordered[0]
        for before, name in pairwise(ordered):
            text += f"{' =' if values[before] == values[name] else ','} {name}"
        return text

    yield f"Order here: {in_order({line.row.name: line.accuracy.value for line in lines})}."
    there = {
        line.row.name: line.row.reported[task].accuracy
        for line in lines
        if task in line.row.reported
    }
    if len(there) > 1:
        yield f"Order in the paper ({task}): {in_order(there)}."
        order = paper_order(lines, task)
        told = len(order.same) + len(order.other)
        yield (
            f"Of {told + len(order.open)} pairs that the paper tells apart, {len(order.same)} are "
            f"in its order here, {len(order.other)} the other way round, {len(order.open)} not "
            "told apart."
        )
        if order.other:
            yield f"The paper has, and here it is the other way round: {pairs(order.other)}."
        if order.open:
            yield f"The paper has, and here it is not told apart: {pairs(order.open)}."
    for line in lines:
        if task not in line.row.reported:
            yield f"{line.row.name}, which the paper has not, is {_standing(line, lines)}."


def _standing(line: Line, lines: Sequence[Line]) -> str:
    """Which others a row is above, below and not told apart from."""
    signs: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
    for other in lines:
        if other is not line:
            apart = line.over(other)
            sign = "above" if apart > 0 else "below" if apart < 0 else "not told apart from"
            signs[sign].append(other.row.name)
    return "; ".join(f"{sign} {', '.join(names)}" for sign, names in signs.items() if names)


def to_csv(lines: Sequence[Line], task: str | None) -> str:
    """One row a row of the table; fractions."""

    def cells(line: Line) -> list[object]:
        estimate = line.accuracy
        there = line.row.reported.get(task) if task else None
        seeds = " ".join(str(one.settings.get(_OF_A_SEED, "")) for one in line.of)
        return [
            *(line.row.key, len(line.of), seeds, estimate.value, estimate.low, estimate.high),
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
    """Accuracy by row with its interval, the seeds as dots, the paper's as diamonds."""
    figure, (axis,) = figures.panels(1, 1, (7.5, 0.5 * len(lines) + 1.6))
    for place, line in enumerate(reversed(lines)):
        value, low, high = (
            100 * x for x in (line.accuracy.value, line.accuracy.low, line.accuracy.high)
        )
        axis.barh(place, value, 0.6, color=figures.colour(0), alpha=0.6)
        axis.hlines(place, low, high, color=figures.colour(0), linewidth=2)
        seeds = [100 * one.summary["accuracy"] for one in line.of]
        axis.plot(seeds, [place] * len(seeds), "o", markersize=4, color=figures.colour(0))
        if task in line.row.reported:
            there = line.row.reported[task].accuracy
            axis.plot(there, place, "D", markersize=6, color=figures.colour(1))
    axis.set_yticks(range(len(lines)), [line.row.label for line in reversed(lines)])
    axis.set_xlim(0, 101)
    axis.grid(axis="y", visible=False)
    beside = f"; diamonds: the paper's, {task}" if task else ""
    axis.set_title(f"Accuracy (%), 95% interval, a dot a seed{beside}", fontsize=10)
    return figure
