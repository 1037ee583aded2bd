"""`rsp-rl analyze pass-at-n`: pass@N over N for several conditions (paper, Figure 4).

Unbiased pass@N of all samples (Chen et al. 2021), not one nested run of N = 1, 2, ...; bands are
95% bootstrap intervals over problems. Differences are to the first folder, on the same drawn
problems. Beside it, as in the paper's Table 3, how far the accuracies of single samples (every
problem's first, every problem's second, ...) lie apart: their standard deviation, n - 1.

Where most problems are never solved, pass@N says little: with --held-out-half a problem counts if
any condition solves it within the first half of its answers, and pass@N is that of the second half.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
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
from rsp_rl.analysis.options import add_analysis, add_folders
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Cell, Estimate, percent
from rsp_rl.evaluation.metrics import bootstrap_means, interval, pass_at_k

Curves = dict[str, dict[str, list[Cell]]]
"""Pass@1, pass@2, ... by benchmark and condition."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze pass-at-n`."""
    parser = add_analysis(
        commands,
        "pass-at-n",
        run,
        help="pass@N of several conditions (Figure 4)",
        description=__doc__,
    )
    add_folders(parser)
    parser.add_argument(
        "--held-out-half",
        action="store_true",
        help="choose the problems on one half of the answers",
    )
    parser.add_argument("--output", type=Path, default=Path("analysis/pass_at_n"))


def run(args: argparse.Namespace) -> int:
    """Write the files of `analyse`."""
    analyse(args.folders, args.output, held_out_half=args.held_out_half)
    return 0


def analyse(folders: Sequence[str], output: Path, *, held_out_half: bool = False) -> None:
    """Write `pass_at_n.csv`, `.md` and `.png`, and `single_samples.csv`; print the table.

    Raises as `pass_curves` does.

    Args:
        folders: `[NAME=]DIR` each, the reference first.
        output: Where to.
        held_out_half: Whether one half of the answers chooses the problems.
    """
    conditions = open_conditions(folders, draw_name)
    curves = pass_curves(conditions, held_out_half=held_out_half)
    kept = {
        name: (sum(solved_in_first_half(conditions, name)), len(conditions[0].problems(name)))
        for name in curves
        if held_out_half
    }
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
        markdown=to_markdown(curves, kept),
        csv=to_csv(curves),
        figure=draw(curves),
    )


def pass_curves(
    conditions: Sequence[Condition], *, seed: int = 0, held_out_half: bool = False
) -> Curves:
    """Pass@N with intervals on every benchmark that all conditions have.

    Args:
        conditions: With equally many samples a problem; temperatures may differ.
        seed: Of the bootstrap.
        held_out_half: Whether one half of the answers chooses the problems.

    Raises:
        ConfigError: If two conditions have the same name.
        RunFolderError: If they cannot be compared, or one half of the answers solves no problem.
    """
    check_names(conditions)
    curves: Curves = {}
    for benchmark in shared_benchmarks(conditions, may_differ=("temperature", "top_p", "top_k")):
        tables = [pass_table(condition, benchmark, held_out_half) for condition in conditions]
        if held_out_half:
            chosen_P = solved_in_first_half(conditions, benchmark)
            if not chosen_P.any():
                raise RunFolderError(
                    f"no condition solves a problem of {benchmark} in the first half of its "
                    "answers; ask more problems, or an easier benchmark"
                )
            tables = [table[:, chosen_P] for table in tables]
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


def solved_in_first_half(conditions: Sequence[Condition], benchmark: str) -> np.ndarray:
    """Which problems any condition solves within the first half of its answers, bool [P].

    Raises:
        RunFolderError: If a problem has a single answer.
    """
    solved_CP = []
    for condition in conditions:
        groups = list(condition.groups(benchmark).values())
        if not (half := len(groups[0]) // 2):
            raise RunFolderError(f"{condition.root} has one sample a problem: it has no halves")
        solved_CP.append([any(sample["correct"] for sample in group[:half]) for group in groups])
    return np.array(solved_CP).any(axis=0)


def pass_table(condition: Condition, benchmark: str, second_half: bool = False) -> np.ndarray:
    """Unbiased pass@N of each problem alone, [N, P], N from 1, problems sorted by id.

    Args:
        condition: The condition.
        benchmark: One of its.
        second_half: Whether the first half of a problem's answers is left out.
    """
    groups = list(condition.groups(benchmark).values())
    if second_half:
        groups = [group[len(group) // 2 :] for group in groups]
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


def to_markdown(curves: Curves, kept: Mapping[str, tuple[int, int]] | None = None) -> str:
    """One table a benchmark, in percent, for N = 1, 2, 4, ... and the largest.

    Args:
        curves: The curves.
        kept: By benchmark, how many problems one half of the answers chose, and of how many.
    """
    lines = ["# Pass@N (%)"]
    for benchmark, by_condition in curves.items():
        shown = _shown(len(next(iter(by_condition.values()))))
        lines += ["", f"## {benchmark}", ""]
        if kept:
            chosen, asked = kept[benchmark]
            lines += [
                f"{chosen} of {asked} problems: those that any condition solves within the first "
                "half of its answers; pass@N is that of the second half.",
                "",
            ]
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
