"""Runs side by side as files: the tables and curves of the paper's Table 5 and Figure 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation import plots
from rsp_rl.evaluation.comparison import Comparison, Estimate, Run, Table, compare, percent
from rsp_rl.evaluation.folder import EvaluationFolder, is_of_modes, modes_of
from rsp_rl.evaluation.summary import PEAK_NOTE, asked_how, read_summary

COMMON_NOTE = (
    "The step is the same for all runs: of the steps that all have, the one with the highest mean "
    "headline over the runs. It too is chosen on the benchmarks that are reported."
)
INTERVAL_NOTE = (
    "Brackets are 95% bootstrap intervals over problems; all runs see the same drawn problems, "
    "which makes the differences paired. Where a run has several training seeds, seeds are drawn "
    "as well; with fewer than about five of them such an interval is too narrow. Runs with one "
    "seed each tell nothing about the spread between seeds."
)


def analyse(runs: Sequence[str], output: Path, *, protocol: str | None = None) -> None:
    """Write `comparison.md`, `.csv`, `curves.csv`, `.png` and `.svg`, and print the tables.

    Raises as `open_run` and `rsp_rl.evaluation.comparison.compare`.

    Args:
        runs: `DIR`, `NAME=DIR` or `NAME=DIR,DIR,...` each.
        output: Where to.
        protocol: Name of the evaluation; needed if a run has several.
    """
    comparison = compare([open_run(text, protocol) for text in runs])
    text = to_markdown(comparison)
    curves = plots.runs(_curve_points(comparison))
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "comparison.md", text)
    write_whole(output / "comparison.csv", tables_csv(comparison))
    write_whole(output / "curves.csv", curves_csv(comparison))
    figures.save(curves, output / "curves.png")
    write_whole(output / "curves.svg", figures.to_svg(curves))
    print(f"{text}\nwritten to {output}")


def open_run(text: str, protocol: str | None = None) -> Run:
    """Find the evaluations that a command-line RUN names.

    Args:
        text: `DIR`, `NAME=DIR` or `NAME=DIR,DIR,...`; a DIR that exists may hold `=` and `,`.
        protocol: Name of the evaluation; needed if a run has several.

    Raises:
        ConfigError: If a run has several evaluations and none was chosen.
        RunFolderError: If there is no such evaluation, or it cannot be read.
    """
    name, roots = run_folders(text)
    folders = tuple(_find_evaluation(root, protocol) for root in roots)
    return Run(name, folders, tuple(read_summary(folder) for folder in folders))


def run_folders(text: str) -> tuple[str, tuple[Path, ...]]:
    """Name and folders of a command-line RUN, as `open_run` takes it."""
    name, equals, rest = text.partition("=")
    if not equals or Path(text).is_dir():
        name, rest = "", text
    roots = [rest] if Path(rest).is_dir() else rest.split(",")
    return name or Path(roots[0]).resolve().name, tuple(map(Path, roots))


def _find_evaluation(run_dir: Path, protocol: str | None) -> EvaluationFolder:
    root = run_dir / "evaluation"
    found = sorted(
        str(part.relative_to(root))
        for folder in root.glob("*")
        if folder.is_dir()
        for part in (modes_of(folder) if is_of_modes(folder) else [folder])
    )
    if protocol is None and len(found) > 1:
        raise ConfigError(f"{run_dir} has several evaluations {found}; choose one with --protocol")
    if protocol is None and found:
        protocol = found[0]
    if protocol not in found:
        raise RunFolderError(
            f"{root} holds {found or 'no evaluation'}{f', not {protocol!r}' if protocol else ''}; "
            "run `rsp-rl eval` first"
        )
    return EvaluationFolder(root / protocol)


def to_markdown(comparison: Comparison) -> str:
    """Both tables and the curves, in percent, with notes on how to read them."""
    manifest = comparison.runs[0].summaries[0].manifest
    protocol = manifest["protocol"]
    headline = ", ".join(comparison.runs[0].summaries[0].headline_benchmarks)
    lines = [
        "# Comparison of runs",
        "",
        f"Protocol {protocol.get('name')}, fingerprint {manifest['fingerprint']}. "
        f"{asked_how(protocol)}. The headline is the unweighted mean of {headline}.",
        "",
        *(
            f"- {r.name}: {', '.join(str(folder.root) for folder in r.folders)}"
            for r in comparison.runs
        ),
        "",
        "## Each run at its peak (%)",
        "",
        *_table_lines(comparison.peaks),
        "",
        PEAK_NOTE,
        "",
        "## All runs at the same step (%)",
        "",
    ]
    if comparison.common:
        lines += [*_table_lines(comparison.common), "", COMMON_NOTE]
    else:
        lines.append("No step is complete in all runs.")
    return "\n".join([*lines, "", INTERVAL_NOTE, "", *_curve_lines(comparison)]) + "\n"


def _table_lines(table: Table) -> list[str]:
    first, *others = table.cells
    head = [f"{name} (step {step})" for name, step in table.steps.items()]
    head += [f"{name} − {first}" for name in others]
    lines = markdown_head(["benchmark", *head])
    for benchmark in table.cells[first]:
        row = [cells[benchmark] for cells in table.cells.values()]
        values = [percent(cell.accuracy) for cell in row]
        values += [percent(cell.difference, "+") for cell in row if cell.difference]
        lines.append(markdown_row([benchmark, *values]))
    return lines


def _curve_lines(comparison: Comparison) -> list[str]:
    steps = sorted({step for curve in comparison.curves.values() for step in curve})
    lines = ["## Headline by step (%)", "", markdown_row(["step", *comparison.curves])]
    lines.append(markdown_row(["--:", *("--:" for _ in comparison.curves)]))
    for step in steps:
        points = [curve.get(step) for curve in comparison.curves.values()]
        lines.append(markdown_row([str(step), *(percent(p) if p else "–" for p in points)]))
    return lines


def tables_csv(comparison: Comparison) -> str:
    """Both tables, one row a choice of step (`peak` or `common`), run and benchmark; fractions."""
    rows: list[list[object]] = []
    for choice, table in (("peak", comparison.peaks), ("common", comparison.common)):
        for name, cells in table.cells.items() if table else ():
            for benchmark, cell in cells.items():
                differences = _values(cell.difference) if cell.difference else ["", "", ""]
                values = [*_values(cell.accuracy), *differences]
                rows.append([choice, name, table.steps[name], benchmark, *values])
    head = "choice,run,step,benchmark,accuracy,low,high,difference,difference_low,difference_high"
    return csv_text(head, rows)


def curves_csv(comparison: Comparison) -> str:
    """Headline by run and step: of what, of how many training seeds, its interval; fractions."""
    seeds = {r.name: len(r.folders) for r in comparison.runs}
    headline = " ".join(comparison.runs[0].summaries[0].headline_benchmarks)
    return csv_text(
        "run,step,seeds,headline,accuracy,low,high",
        [
            [name, step, seeds[name], headline, *_values(estimate)]
            for name, curve in comparison.curves.items()
            for step, estimate in curve.items()
        ],
    )


def _curve_points(comparison: Comparison) -> dict[str, dict[int, figures.Point]]:
    return {
        name: {step: (e.value, e.low, e.high) for step, e in curve.items()}
        for name, curve in comparison.curves.items()
    }


def _values(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]
