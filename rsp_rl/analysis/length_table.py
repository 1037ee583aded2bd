"""`rsp-rl analyze lengths`: which L suits which benchmark (paper, Table 7).

The paper takes the best of L in {10, 15, 20} for each model and benchmark. Here one half of the
problems (seeded) chooses, and the other half gives the accuracy with its 95% bootstrap interval:
the best of three on the same problems would flatter itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from rsp_rl.analysis.conditions import (
    Condition,
    open_conditions,
    position_name,
    shared_benchmarks,
)
from rsp_rl.analysis.options import add_folders_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.errors import ConfigError
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.comparison import Estimate, percent
from rsp_rl.evaluation.reading import read_finished_samples

if TYPE_CHECKING:
    from rsp_rl.evaluation.length_selection import LengthChoice

Choices = dict[str, "LengthChoice"]
"""By benchmark."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze lengths`."""
    add_folders_analysis(
        commands,
        "lengths",
        analyse,
        help="the best L by benchmark, chosen and reported on different problems (Table 7)",
        description=__doc__,
        output=Path("analysis/lengths"),
    )


def analyse(folders: Sequence[str], output: Path) -> None:
    """Write `lengths.md`, `lengths.csv` and `lengths.png`; print the table.

    Raises as `length_choices` does.

    Args:
        folders: `[NAME=]DIR` each.
        output: Where to.
    """
    choices = length_choices(open_conditions(folders, position_name))
    write_analysis(
        output,
        "lengths",
        markdown=to_markdown(choices),
        csv=to_csv(choices),
        figure=draw(choices),
    )


def length_choices(conditions: Sequence[Condition]) -> Choices:
    """Choose an L for every benchmark.

    Args:
        conditions: With soft prompts at one position; one or several an L, with other benchmarks
            each.

    Raises:
        ConfigError: If two hold the same L and benchmark, one has no soft prompts or another
            position, a benchmark lacks an L, or has fewer than two problems.
        RunFolderError: If they were not evaluated alike.
    """
    from rsp_rl.evaluation.length_selection import choose_length

    by_benchmark: dict[str, dict[int, Condition]] = {}
    for condition in conditions:
        length = condition.protocol.rsp.length
        if not condition.protocol.rsp.enabled:
            raise ConfigError(f"{condition.root} has no soft prompts, hence no L to choose")
        if condition.protocol.rsp.adds:
            raise ConfigError(f"{condition.root} has {condition.name}, which has no L to choose")
        for benchmark in condition.benchmarks:
            other = by_benchmark.setdefault(benchmark, {}).setdefault(length, condition)
            if other is not condition:
                raise ConfigError(
                    f"{other.root} and {condition.root} both hold {benchmark} with L = {length}; "
                    "leave one out"
                )
    if len(positions := {condition.name for condition in conditions}) > 1:
        raise ConfigError(f"L is chosen for one position, not for {', '.join(sorted(positions))}")
    choices = {}
    for benchmark, by_length in by_benchmark.items():
        shared_benchmarks(list(by_length.values()))
        choices[benchmark] = choose_length(
            {length: read_finished_samples(c.step, benchmark) for length, c in by_length.items()},
            conditions[0].protocol.seed,
        )
    if len({tuple(choice["choosing"]) for choice in choices.values()}) > 1:
        raise ConfigError("every benchmark is needed with the same lengths; evaluate the others")
    return choices


def to_markdown(choices: Choices) -> str:
    """A row a benchmark, in percent."""
    lengths = list(next(iter(choices.values()))["choosing"])
    head = [*(f"L = {length}, choosing half" for length in lengths), "chosen L"]
    head += ["accuracy on the other half", "problems there"]
    lines = ["# Accuracy by length of the soft prompt (%)", ""]
    lines += markdown_head(["benchmark", *head])
    for benchmark, choice in choices.items():
        accuracy = Estimate(choice["accuracy"], choice["accuracy_low"], choice["accuracy_high"])
        cells = [f"{100 * value:.2f}" for value in choice["choosing"].values()]
        cells += [str(choice["length"]), percent(accuracy), str(choice["problems"])]
        lines.append(markdown_row([benchmark, *cells]))
    return "\n".join(lines) + "\n"


def to_csv(choices: Choices) -> str:
    """One row a benchmark and L: accuracy on either half, and whether it was chosen; fractions."""
    return csv_text(
        "benchmark,length,choosing,held_out,chosen",
        [
            [
                *(benchmark, length, choice["choosing"][length], choice["held_out"][length]),
                int(int(length) == choice["length"]),
            ]
            for benchmark, choice in choices.items()
            for length in choice["choosing"]
        ],
    )


def draw(choices: Choices) -> Figure:
    """A panel a benchmark: accuracy by L on either half."""
    figure, axes = figures.panels(1, len(choices), (3.6 * len(choices) + 0.6, 3.6))
    for axis, (benchmark, choice) in zip(axes, choices.items(), strict=True):
        halves = (("choosing half", choice["choosing"]), ("other half", choice["held_out"]))
        for number, (label, accuracy) in enumerate(halves):
            axis.plot(
                [int(length) for length in accuracy],
                [100 * value for value in accuracy.values()],
                color=figures.colour(number),
                marker=figures.marker(number),
                label=label,
            )
        axis.axvline(choice["length"], color="#888888", linestyle=":")
        axis.set_xticks([int(length) for length in choice["choosing"]])
        axis.set_title(benchmark, fontsize=10)
        axis.set(xlabel="L (dotted: chosen)", ylabel="accuracy (%)")
    figures.legend_below(figure, axes[0], 2)
    return figure
