"""`rsp-rl analyze positions`: accuracy by model, position and benchmark (paper, Tables 2 and 6).

Differences are to the same model's baseline on the same problems. Brackets are 95% bootstrap
intervals over problems, which are drawn together for all conditions of a model.

Where L differs by benchmark (the paper's Table 7), give several folders of a position, each with
other benchmarks.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.analysis.conditions import (
    BASELINE,
    Condition,
    open_conditions,
    position_name,
    shared_benchmarks,
)
from rsp_rl.analysis.options import add_folders_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.errors import RunFolderError
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import HEADLINE, Cell, estimate, percent

MEAN = "mean"

#: Rows in this order, then all others.
_ORDER = (BASELINE, "prefix", "infix", "suffix", "random", "ltpo", "ttsv", "softcot")

Table = dict[str, dict[str, dict[str, Cell]]]
"""Cells by model, condition and benchmark; the mean over benchmarks comes last."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze positions`."""
    add_folders_analysis(
        commands,
        "positions",
        analyse,
        help="accuracy by model, position and benchmark (Tables 2 and 6)",
        description=__doc__,
        output=Path("analysis/positions"),
    )


def analyse(folders: Sequence[str], output: Path) -> None:
    """Write `positions.md`, `positions.csv` and `positions.png`; print the table.

    Raises as `position_table` does.

    Args:
        folders: `[NAME=]DIR` each.
        output: Where to.
    """
    write_table(
        output,
        open_conditions(folders, position_name),
        name="positions",
        title="Accuracy by position of the soft prompt (%)",
        row="position",
    )


def write_table(
    output: Path, conditions: Sequence[Condition], *, name: str, title: str, row: str
) -> None:
    """Write the table of the conditions, and print it; as `position_table` raises.

    Args:
        output: Where to.
        conditions: See `position_table`.
        name: Of the files.
        title: Of the table.
        row: What a row stands for.
    """
    table = position_table(conditions)
    write_analysis(
        output,
        name,
        markdown=to_markdown(table, title, row),
        csv=to_csv(table, conditions, row),
        figure=draw(table),
    )


def position_table(conditions: Sequence[Condition], *, seed: int = 0) -> Table:
    """Accuracies with intervals, and how far they are above the model's baseline.

    Args:
        conditions: Of one model or several, a baseline of each among them.
        seed: Of the bootstrap.

    Raises:
        RunFolderError: If a model lacks a baseline, two folders hold the same cell, a condition
            lacks a benchmark of its model's baseline or has one more, or folders were not
            evaluated alike.
    """
    by_model: dict[str, dict[str, dict[str, Condition]]] = {}
    for condition in conditions:
        row = by_model.setdefault(condition.model, {}).setdefault(condition.name, {})
        for benchmark in condition.benchmarks:
            if benchmark in row:
                raise RunFolderError(
                    f"{row[benchmark].root} and {condition.root} both hold {benchmark} of "
                    f"{condition.model}, {condition.name}; leave one out, or name them: NAME=DIR"
                )
            row[benchmark] = condition
    return {model: _rows(model, found, seed) for model, found in by_model.items()}


def _rows(
    model: str, found: Mapping[str, Mapping[str, Condition]], seed: int
) -> dict[str, dict[str, Cell]]:
    if BASELINE not in found:
        raise RunFolderError(
            f"no folder holds the baseline of {model}; evaluate it with rsp.length=0"
        )
    names = sorted(found, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    benchmarks = list(found[BASELINE])
    for name in names:
        if odd := sorted(found[name].keys() ^ found[BASELINE].keys()):
            raise RunFolderError(
                f"{model}: {odd[0]} is finished in only one of {BASELINE} and {name}; evaluate it "
                "in the other too"
            )
        for benchmark in benchmarks:
            shared_benchmarks([found[BASELINE][benchmark], found[name][benchmark]])
    tables = {name: {b: accuracies(found[name][b], b)[None] for b in benchmarks} for name in names}
    cells = estimate(tables, benchmarks, seed)
    return {
        name: {MEAN if b == HEADLINE else b: cell for b, cell in row.items()}
        for name, row in cells.items()
    }


def accuracies(condition: Condition, benchmark: str) -> np.ndarray:
    """Fraction of right samples of each problem, [P], problems sorted by id."""
    groups = condition.groups(benchmark).values()
    return np.array([np.mean([sample["correct"] for sample in group]) for group in groups])


def to_markdown(table: Table, title: str, row_name: str) -> str:
    """One table a model: accuracy, and below it the difference to the baseline, in percent."""
    lines = [f"# {title}"]
    for model, rows in table.items():
        benchmarks = list(rows[BASELINE])
        lines += ["", f"## {model}", "", *markdown_head([row_name, *benchmarks])]
        for name, row in rows.items():
            lines.append(markdown_row([name, *(percent(row[b].accuracy) for b in benchmarks)]))
            if name != BASELINE:
                differences = [percent(row[b].difference, "+") for b in benchmarks]
                lines.append(markdown_row([f"{name} − {BASELINE}", *differences]))
    return "\n".join(lines) + "\n"


def to_csv(table: Table, conditions: Sequence[Condition], row_name: str) -> str:
    """One row a model, condition and benchmark; fractions, and L where it is one number."""
    lengths = {
        (c.model, c.name, benchmark): c.protocol.rsp.length
        for c in conditions
        if not c.protocol.rsp.has_added_rows  # whose L is each question's
        for benchmark in c.benchmarks
    }
    return csv_text(
        f"model,{row_name},benchmark,length,accuracy,low,high,"
        "difference,difference_low,difference_high",
        [
            [
                *(model, name, benchmark, lengths.get((model, name, benchmark), "")),
                *astuple(cell.accuracy),
                *(astuple(cell.difference) if cell.difference else ("", "", "")),
            ]
            for model, rows in table.items()
            for name, row in rows.items()
            for benchmark, cell in row.items()
        ],
    )


def draw(table: Table) -> Figure:
    """One panel a model: each condition's difference to the baseline, by benchmark."""
    widest = max(len(rows[BASELINE]) for rows in table.values())
    size = (max(5.0, 1.7 * widest + 1.5) * len(table), 4.0)
    figure, axes = figures.panels(1, len(table), size)
    for axis, (model, rows) in zip(axes, table.items(), strict=True):
        benchmarks = list(rows[BASELINE])
        others = [name for name in rows if name != BASELINE]
        axis.axhline(0, color="#444444", linewidth=1)
        for number, name in enumerate(others):
            cells = [rows[name][b].difference for b in benchmarks]
            offset = 0.16 * (number - (len(others) - 1) / 2)
            axis.errorbar(
                np.arange(len(benchmarks)) + offset,
                [100 * cell.value for cell in cells],
                [
                    [100 * (cell.value - cell.low) for cell in cells],
                    [100 * (cell.high - cell.value) for cell in cells],
                ],
                fmt=figures.marker(number),
                color=figures.colour(number),
                capsize=3,
                label=name,
            )
        axis.set_xticks(range(len(benchmarks)), benchmarks)
        axis.set_xlim(-0.5, len(benchmarks) - 0.5)
        axis.set_title(model, fontsize=10)
        axis.set_ylabel("accuracy − baseline (points), 95% interval")
    figures.legend_below(figure, axes[0], 4)
    return figure
