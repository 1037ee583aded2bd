"""Tables of conditions by measures: values with intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Cell, Estimate
from rsp_rl.evaluation.metrics import bootstrap_means, interval

Table = Mapping[str, Mapping[str, Mapping[str, Cell]]]
"""Cells by benchmark, condition and measure."""


@dataclass(frozen=True)
class Measure:
    """What stands in a column.

    Attributes:
        name: As shown.
        percent: Whether it is a fraction that is shown in percent.
        places: Decimals that are shown.
    """

    name: str
    percent: bool = False
    places: int = 1

    @property
    def factor(self) -> int:
        """From its value to what is shown."""
        return 100 if self.percent else 1

    def shown(self, cell: Cell | None) -> str:
        """A cell: its value with its interval, its difference below."""
        if cell is None:
            return "–"
        text = self._numbers(cell.accuracy)
        return f"{text}<br>{self._numbers(cell.difference, '+')}" if cell.difference else text

    def _numbers(self, estimate: Estimate, sign: str = "") -> str:
        numbers = (f"{self.factor * x:{sign},.{self.places}f}" for x in astuple(estimate))
        value, low, high = numbers
        return value if math.isnan(estimate.low) else f"{value} [{low}, {high}]"


def paired_cells(
    values_P: Mapping[str, np.ndarray], references: Mapping[str, str], seed: int = 0
) -> dict[str, Cell]:
    """Means with 95% bootstrap intervals, and differences on the same drawn problems.

    One problem says nothing of their spread: its interval is NaN, and shown as none.

    Args:
        values_P: By condition, a value a problem.
        references: By condition, what it is compared with; itself for nothing.
        seed: Of the bootstrap.
    """
    if not values_P:
        return {}
    names = list(values_P)
    values = np.array(list(values_P.values()))
    drawn = bootstrap_means(values, np.random.default_rng(seed))
    if values.shape[1] < 2:
        drawn = np.full_like(drawn, np.nan)
    by_name = {name: drawn[:, i] for i, name in enumerate(names)}
    cells = {}
    for name in names:
        own, other = values_P[name], references[name]
        difference = None
        if other != name and other in values_P:
            difference = Estimate(
                float((own - values_P[other]).mean()), *interval(by_name[name] - by_name[other])
            )
        cells[name] = Cell(Estimate(float(own.mean()), *interval(by_name[name])), difference)
    return cells


def to_markdown(title: str, table: Table, measures: Sequence[Measure]) -> str:
    """A table a benchmark: values with intervals, differences below them."""
    lines = [f"# {title}"]
    for benchmark, rows in table.items():
        there = _there({benchmark: rows}, measures)
        heads = [f"{m.name} (%)" if m.percent else m.name for m in there]
        lines += ["", f"## {benchmark}", "", *markdown_head(["condition", *heads])]
        for name, row in rows.items():
            lines.append(markdown_row([name, *(m.shown(row.get(m.name)) for m in there)]))
    lines += ["", "Below a value: its difference to the reference, on the same problems."]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One row a benchmark, condition and measure; fractions."""
    return csv_text(
        "benchmark,condition,measure,value,low,high,difference,difference_low,difference_high",
        [
            [
                *(benchmark, name, measure),
                *_csv_numbers(cell.accuracy),
                *(_csv_numbers(cell.difference) if cell.difference else ("", "", "")),
            ]
            for benchmark, rows in table.items()
            for name, row in rows.items()
            for measure, cell in row.items()
        ],
    )


def _csv_numbers(estimate: Estimate) -> list[object]:
    return ["" if math.isnan(number) else number for number in astuple(estimate)]


def draw(
    table: Table,
    measures: Sequence[Measure],
    colour_of: Callable[[int, str], str],
    *,
    differences: bool = False,
) -> Figure:
    """A row of panels a benchmark, a panel a measure, a condition a line with its interval.

    Args:
        table: The table.
        measures: Columns, in order.
        colour_of: Of a condition, by its number and name.
        differences: Whether to draw these instead of the values.
    """
    there = _there(table, measures)
    conditions = max(len(rows) for rows in table.values())
    size = (3 * len(there) + 1.5, (0.28 * conditions + 1.3) * len(table))
    figure, axes = figures.panels(len(table), len(there), size)
    for number, (benchmark, rows) in enumerate(table.items()):
        for i, measure in enumerate(there):
            axis = axes[number * len(there) + i]
            for place, (name, row) in enumerate(rows.items()):
                cell = row.get(measure.name)
                shown = cell and (cell.difference if differences else cell.accuracy)
                if shown is None:
                    continue
                value, low, high = (measure.factor * x for x in astuple(shown))
                colour = colour_of(place, name)
                axis.plot([low, high], [place, place], color=colour, linewidth=1.5)
                axis.plot([value], [place], color=colour, marker="o", markersize=4)
            if differences:
                axis.axvline(0, color="#444444", linewidth=0.8)
                axis.locator_params(axis="x", nbins=4)  # small ones have long labels
            axis.set_yticks(range(len(rows)), list(rows) if i == 0 else [""] * len(rows))
            axis.set_ylim(len(rows) - 0.5, -0.5)
            title = f"{measure.name}, difference" if differences else measure.name
            axis.set_title(f"{benchmark}: {title}" if i == 0 else title, fontsize=9)
            axis.set_xlabel("%" if measure.percent else "", fontsize=8)
    return figure


def _there(table: Table, measures: Sequence[Measure]) -> list[Measure]:
    """Those that some condition has."""
    return [
        m for m in measures if any(m.name in r for rows in table.values() for r in rows.values())
    ]
