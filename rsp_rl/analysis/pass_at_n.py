"""`rsp-rl analyze pass-at-n`: pass@N over N for several conditions (paper, Figure 4).

Unbiased pass@N of all samples (Chen et al. 2021), not one nested run of N = 1, 2, ...; bands are
95% bootstrap intervals over problems. Differences are to the first folder, on the same drawn
problems. Beside it, as in the paper's Table 3, how far the accuracies of single samples (every
problem's first, every problem's second, ...) lie apart: their standard deviation, n - 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rsp_rl.analysis.conditions import (
    Condition,
    check_names,
    draw_name,
    open_conditions,
    shared_benchmarks,
)
from rsp_rl.analysis.options import add_folders_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Cell, Estimate, percent
from rsp_rl.evaluation.metrics import bootstrap_means, interval, pass_at_k

Curves = dict[str, dict[str, list[Cell]]]
"""Pass@1, pass@2, ... by benchmark and condition."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze pass-at-n`."""
    add_folders_analysis(
        commands,
        "pass-at-n",
        analyse,
        help="pass@N of several conditions (Figure 4)",
        description=__doc__,
        output=Path("analysis/pass_at_n"),
    )


def analyse(folders: Sequence[str], output: Path) -> None:
    """Write `pass_at_n.csv`, `.md` and `.png`, and `single_samples.csv`; print the table.

    Raises as `pass_curves` does.

    Args:
        folders: `[NAME=]DIR` each, the reference first.
        output: Where to.
    """
    conditions = open_conditions(folders, draw_name)
    curves = pass_curves(conditions)
    spreads = [
        [name, condition.name, *sample_spread(condition, name)]
        for name in curves
        for condition in conditions
        if condition.plan(name).samples > 1
    ]
    output.mkdir(parents=True, exist_ok=True)
    head = "benchmark,condition,samples,standard_deviation"
    write_whole(output / "single_samples.csv", csv_text(head, spreads))
    write_analysis(
        output,
        "pass_at_n",
        markdown=to_markdown(curves),
        csv=to_csv(curves),
        figure=draw(curves),
    )


def pass_curves(conditions: Sequence[Condition], *, seed: int = 0) -> Curves:
    """Pass@N with intervals on every benchmark that all conditions have.

    Args:
        conditions: With equally many samples a problem; temperatures may differ.
        seed: Of the bootstrap.

    Raises:
        ConfigError: If two conditions have the same name.
        RunFolderError: If they cannot be compared.
    """
    check_names(conditions)
    curves: Curves = {}
    for benchmark in shared_benchmarks(conditions, may_differ=("temperature", "top_p", "top_k")):
        tables = [pass_table(condition, benchmark) for condition in conditions]
        # All rows in one bootstrap: the same problems for every condition and every N.
        resampled = bootstrap_means(np.concatenate(tables), np.random.default_rng(seed))
        by_condition = np.split(resampled, len(tables), axis=1)
        curves[benchmark] = {
            condition.name: [
                Cell(
                    Estimate(float(table[k].mean()), *interval(drawn[:, k])),
                    None
                    if condition is conditions[0]
                    else Estimate(
                        float((table[k] - tables[0][k]).mean()),
                        *interval(drawn[:, k] - by_condition[0][:, k]),
                    ),
                )
                for k in range(len(table))
            ]
            for condition, table, drawn in zip(conditions, tables, by_condition, strict=True)
        }
    return curves


def pass_table(condition: Condition, benchmark: str) -> np.ndarray:
    """Unbiased pass@N of each problem alone, [N, P], N from 1, problems sorted by id."""
    groups = list(condition.groups(benchmark).values())
    n = len(groups[0])
    by_count_CN = np.array(
        [[pass_at_k(n, np.array([c]), k) for k in range(1, n + 1)] for c in range(n + 1)]
    )
    correct_P = [sum(sample["correct"] for sample in group) for group in groups]
    return by_count_CN[correct_P].T


def sample_spread(condition: Condition, benchmark: str) -> tuple[int, float]:
    """How many samples a problem has, at least two, and their accuracies' standard deviation."""
    groups = condition.groups(benchmark).values()
    right_PN = np.array([[sample["correct"] for sample in group] for group in groups])
    return right_PN.shape[1], float(right_PN.mean(0).std(ddof=1))


def _shown(n: int) -> list[int]:
    """Powers of two up to N, and N."""
    return sorted({2**i for i in range(n.bit_length())} | {n})


def to_markdown(curves: Curves) -> str:
    """One table a benchmark, in percent, for N = 1, 2, 4, ... and the largest."""
    lines = ["# Pass@N (%)"]
    for benchmark, by_condition in curves.items():
        shown = _shown(len(next(iter(by_condition.values()))))
        lines += ["", f"## {benchmark}", ""]
        lines += markdown_head(["condition", *(f"N = {n}" for n in shown)])
        first = next(iter(by_condition))
        for name, cells in by_condition.items():
            lines.append(markdown_row([name, *(percent(cells[n - 1].accuracy) for n in shown)]))
            if name != first:
                differences = [percent(cells[n - 1].difference, "+") for n in shown]
                lines.append(markdown_row([f"{name} − {first}", *differences]))
    return "\n".join(lines) + "\n"


def to_csv(curves: Curves) -> str:
    """One row a benchmark, condition and N; fractions."""
    return csv_text(
        "benchmark,condition,n,pass,low,high,difference,difference_low,difference_high",
        [
            [
                *(benchmark, name, n),
                *astuple(cell.accuracy),
                *(astuple(cell.difference) if cell.difference else ("", "", "")),
            ]
            for benchmark, by_condition in curves.items()
            for name, cells in by_condition.items()
            for n, cell in enumerate(cells, 1)
        ],
    )


def draw(curves: Curves) -> Figure:
    """One panel a benchmark, a curve a condition."""
    figure, axes = figures.panels(1, len(curves), (4.8 * len(curves) + 0.6, 4.4))
    for axis, (benchmark, by_condition) in zip(axes, curves.items(), strict=True):
        for number, (name, cells) in enumerate(by_condition.items()):
            points = {n: astuple(cell.accuracy) for n, cell in enumerate(cells, 1)}
            colour = figures.colour(number)
            figures.curve(axis, points, colour, figures.marker(number), name)
        axis.set_title(benchmark, fontsize=10)
        axis.set(xlabel="N (samples)", ylabel="pass@N (%), 95% interval")
    figures.legend_below(figure, axes[0], 2)
    return figure
