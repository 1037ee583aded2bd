"""`rsp-rl analyze laws`: one model with and without continuous tokens, side by side.

A row a condition: accuracy, generated tokens of an answer, those of right answers alone (as the
papers of continuous tokens have them: wrong answers are often longer), and thoughts. With 95%
bootstrap intervals over problems; below a value its difference to the first condition, on the same
drawn problems. Folders are told apart by their laws, those without by how tokens were chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsp_rl.analysis.cells import Measure, draw, paired_cells, to_csv, to_markdown
from rsp_rl.analysis.conditions import Condition, check_names, open_conditions, shared_benchmarks
from rsp_rl.analysis.options import add_analysis, add_folders
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.analysis.thoughts import law_name
from rsp_rl.display import figures
from rsp_rl.evaluation.comparison import Cell, Estimate
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.metrics import bootstrap_means, interval
from rsp_rl.evaluation.thoughts import thought_count

ACCURACY, TOKENS, RIGHT_TOKENS, THOUGHTS = (
    "accuracy",
    "tokens",
    "tokens of right answers",
    "thoughts",
)
_COLUMNS = (
    Measure(ACCURACY, percent=True),
    *(Measure(name) for name in (TOKENS, RIGHT_TOKENS, THOUGHTS)),
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze laws`."""
    parser = add_analysis(
        commands,
        "laws",
        run,
        help="accuracy and lengths with and without continuous tokens",
        description=__doc__,
    )
    add_folders(parser)
    parser.add_argument("--output", type=Path, default=Path("analysis/laws"))


def run(args: argparse.Namespace) -> int:
    """Write `laws.csv`, `.md` and `.png`; print the table."""
    analyse(args.folders, args.output)
    return 0


def analyse(folders: Sequence[str], output: Path) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR` each; the others are compared with the first.
        output: Where to.

    Raises:
        ConfigError: If two folders are the same condition.
        RunFolderError: If they cannot be compared.
    """
    conditions = open_conditions(folders, law_name)
    check_names(conditions)
    answers = ("samples", "temperature", "top_p", "top_k")
    table = {
        benchmark: _rows(benchmark, conditions)
        for benchmark in shared_benchmarks(conditions, may_differ=answers)
    }
    figure = draw(table, _COLUMNS, lambda number, _: figures.colour(number))
    markdown = to_markdown("With and without continuous tokens", table, _COLUMNS)
    write_analysis(output, "laws", markdown=markdown, csv=to_csv(table), figure=figure)


def _rows(benchmark: str, conditions: Sequence[Condition]) -> dict[str, dict[str, Cell]]:
    groups = {c.name: list(c.groups(benchmark).values()) for c in conditions}
    references = dict.fromkeys(groups, conditions[0].name)
    rows: dict[str, dict[str, Cell]] = {name: {} for name in groups}
    for measure, value_of in (
        (ACCURACY, lambda sample: float(sample["correct"])),
        (TOKENS, lambda sample: float(sample["tokens"])),
    ):
        values = {
            name: np.array([np.mean([value_of(sample) for sample in group]) for group in of])
            for name, of in groups.items()
        }
        for name, cell in paired_cells(values, references).items():
            rows[name][measure] = cell
    for name, of in groups.items():
        if (right := _of_right_answers(of)) is not None:
            rows[name][RIGHT_TOKENS] = Cell(right, None)
    thinking = {c.name: groups[c.name] for c in conditions if c.protocol.law}
    values = {
        name: np.array([np.mean([thought_count(sample) for sample in group]) for group in of])
        for name, of in thinking.items()
    }
    for name, cell in paired_cells(values, {name: name for name in values}).items():
        rows[name][THOUGHTS] = cell
    return rows


def _of_right_answers(groups: Sequence[Sequence[Sample]]) -> Estimate | None:
    """Mean tokens over right answers, problems drawn anew; None without a right one."""
    right = [[s["tokens"] for s in group if s["correct"]] for group in groups]
    sums_2P = np.array([[sum(tokens) for tokens in right], [len(tokens) for tokens in right]])
    if not sums_2P[1].any():
        return None
    drawn = bootstrap_means(sums_2P.astype(float), np.random.default_rng(0))
    some = drawn[:, 1] > 0
    ratios = drawn[some, 0] / drawn[some, 1]
    return Estimate(float(sums_2P[0].sum() / sums_2P[1].sum()), *interval(ratios))
