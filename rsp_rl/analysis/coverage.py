"""`rsp-rl analyze coverage`: which problems only one of two conditions solves (paper, Table 10).

A condition solves a problem if at least one of its samples is right (with one greedy sample, if
that one is). Coverage says which problems, not how many: two conditions of equal accuracy may
differ on many. `coverage.html` shows the problems that differ, the two answers side by side.
"""

from __future__ import annotations

import argparse
import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from matplotlib.figure import Figure

from rsp_rl.analysis.conditions import (
    BASELINE,
    Condition,
    check_names,
    open_conditions,
    shared_benchmarks,
)
from rsp_rl.analysis.options import FOLDERS_HELP, add_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures
from rsp_rl.display.pages import asset, page
from rsp_rl.display.tables import csv_text, markdown_head, markdown_row
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.evaluation.reading import AskedProblem
from rsp_rl.evaluation.viewer_data import shown_sample

OUTCOMES = ("both", "only first", "only second", "neither")


@dataclass(frozen=True)
class ProblemCoverage:
    """One problem under both conditions.

    Attributes:
        benchmark: Its benchmark.
        problem: What was asked.
        first: Samples of the first condition.
        second: Samples of the second.
    """

    benchmark: str
    problem: AskedProblem
    first: list[Sample]
    second: list[Sample]

    @property
    def right(self) -> tuple[int, int]:
        """Right samples of either condition."""
        first, second = (sum(s["correct"] for s in group) for group in (self.first, self.second))
        return first, second

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`."""
        first, second = self.right
        return {
            (True, True): "both",
            (True, False): "only first",
            (False, True): "only second",
            (False, False): "neither",
        }[first > 0, second > 0]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze coverage`."""
    parser = add_analysis(
        commands,
        "coverage",
        run,
        help="problems that only one of two conditions solves, side by side (Table 10)",
        description=__doc__,
    )
    parser.add_argument("first", metavar="DIR", help=FOLDERS_HELP)
    parser.add_argument("second", metavar="DIR")
    parser.add_argument("--output", type=Path, default=Path("analysis/coverage"))


def run(args: argparse.Namespace) -> int:
    """Write `coverage.md`, `.csv`, `.png` and `.html`; print the table."""
    analyse([args.first, args.second], args.output)
    return 0


def analyse(folders: Sequence[str], output: Path) -> None:
    """Write the files of `run`; as `coverage` raises.

    Args:
        folders: `[NAME=]DIR`, two of them.
        output: Where to.
    """
    pair = open_conditions(folders, rows_name)
    problems = coverage(*pair)
    first, second = (condition.name for condition in pair)
    output.mkdir(parents=True, exist_ok=True)
    write_whole(output / "coverage.html", to_html(problems, first, second))
    write_analysis(
        output,
        "coverage",
        markdown=to_markdown(problems, first, second),
        csv=to_csv(problems),
        figure=draw(problems, first, second),
    )


def rows_name(protocol: Protocol) -> str:
    """A condition by what was drawn for its prompts."""
    if protocol.rsp.has_added_rows:
        return protocol.rsp.law
    return "RSP" if protocol.rsp.enabled else BASELINE


def coverage(first: Condition, second: Condition) -> list[ProblemCoverage]:
    """Every problem of every benchmark that both have.

    Raises:
        ConfigError: If they have the same name.
        RunFolderError: If they cannot be compared: other models, problems or numbers of samples.
    """
    check_names([first, second])
    sampling = ("temperature", "top_p", "top_k")
    found = []
    for benchmark in shared_benchmarks([first, second], may_differ=sampling):
        groups = first.groups(benchmark), second.groups(benchmark)
        for name, problem in first.problems(benchmark).items():
            found.append(ProblemCoverage(benchmark, problem, *(group[name] for group in groups)))
    return found


def count(problems: Sequence[ProblemCoverage]) -> dict[str, dict[str, int]]:
    """Problems by benchmark and outcome."""
    counted: dict[str, Counter[str]] = {}
    for problem in problems:
        counted.setdefault(problem.benchmark, Counter())[problem.outcome] += 1
    return {name: {o: outcomes[o] for o in OUTCOMES} for name, outcomes in counted.items()}


def _labels(first: str, second: str) -> list[str]:
    return ["both", f"only {first}", f"only {second}", "neither"]


def to_markdown(problems: Sequence[ProblemCoverage], first: str, second: str) -> str:
    """The counts by benchmark."""
    head = [*_labels(first, second), "problems"]
    lines = [f"# Problems solved by {first} and {second}", "", *markdown_head(["benchmark", *head])]
    for benchmark, outcomes in count(problems).items():
        numbers = [*outcomes.values(), sum(outcomes.values())]
        lines.append(markdown_row([benchmark, *map(str, numbers)]))
    return "\n".join(lines) + "\n"


def to_csv(problems: Sequence[ProblemCoverage]) -> str:
    """One row a problem: right samples of both conditions, and the outcome."""
    return csv_text(
        "benchmark,problem,samples,right_first,right_second,outcome",
        [[p.benchmark, p.problem["id"], len(p.first), *p.right, p.outcome] for p in problems],
    )


def draw(problems: Sequence[ProblemCoverage], first: str, second: str) -> Figure:
    """Share of problems by outcome, a bar a benchmark."""
    counted = count(problems)
    figure, (axis,) = figures.panels(1, 1, (7.5, 0.6 * len(counted) + 1.6))
    colours = (figures.COLOURS[6], figures.COLOURS[0], figures.COLOURS[1], "#dddddd")
    left = dict.fromkeys(counted, 0.0)
    for outcome, label, colour in zip(OUTCOMES, _labels(first, second), colours, strict=True):
        shares = {b: 100 * o[outcome] / sum(o.values()) for b, o in counted.items()}
        bars = axis.barh(
            list(counted),
            list(shares.values()),
            left=list(left.values()),
            color=colour,
            label=label,
        )
        axis.bar_label(
            bars, [str(o[outcome] or "") for o in counted.values()], label_type="center", fontsize=9
        )
        left = {b: left[b] + shares[b] for b in counted}
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.set_xlim(0, 100)
    axis.set_xlabel("share of problems (%)")
    figures.legend_below(figure, axis, 4)
    return figure


def to_html(problems: Sequence[ProblemCoverage], first: str, second: str) -> str:
    """A page of the problems that differ; it loads nothing and runs nothing.

    Model output is untrusted: it stands there as text, and the page admits no script.
    """
    counted = count(problems)
    head = "".join(f"<th>{html.escape(label)}</th>" for label in _labels(first, second))
    rows = "".join(
        f"<tr><th>{html.escape(b)}</th>{''.join(f'<td>{n}</td>' for n in outcomes.values())}</tr>"
        for b, outcomes in counted.items()
    )
    differing = [p for o in ("only second", "only first") for p in problems if p.outcome == o]
    title = f"{first} and {second}: problems that only one of them solves"
    body = Template(asset("rsp_rl.analysis", "coverage.html")).substitute(
        title=html.escape(title),
        table=f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>",
        problems="\n".join(_entry(problem, first, second) for problem in differing),
    )
    return page(title, body, style=asset("rsp_rl.analysis", "coverage.css"))


def _entry(problem: ProblemCoverage, first: str, second: str) -> str:
    label = dict(zip(OUTCOMES, _labels(first, second), strict=True))[problem.outcome]
    title = f"{problem.benchmark} · {problem.problem['id']}: {label}"
    columns = "".join(_columns(problem, (first, second)))
    return (
        f"<details><summary>{html.escape(title)}</summary>"
        f'<div class="question-text text">{html.escape(problem.problem["question"])}</div>'
        f'<div>Gold answer: <span class="math">{html.escape(problem.problem["gold"])}</span></div>'
        f'<div class="columns">{columns}</div></details>'
    )


def _columns(problem: ProblemCoverage, names: tuple[str, str]) -> Iterator[str]:
    """Of each condition its first right sample, else its first."""
    groups = (problem.first, problem.second)
    for name, group, right in zip(names, groups, problem.right, strict=True):
        shown = shown_sample(max(group, key=lambda sample: sample["correct"]))
        gap = f"{shown['left_out']:,} characters left out"
        rest = f'<span class="gap">{gap}</span>{html.escape(shown["tail"])}'
        marks = "".join(f'<span class="badge">{mark}</span>' for mark in shown["marks"])
        yield (
            f'<div class="column{" right" if shown["correct"] else ""}"><header>'
            f'<div class="verdict">{html.escape(name)}'
            f"<b>{'✓ right' if shown['correct'] else '✗ wrong'}</b></div>"
            f'<div class="facts">answer <code>{html.escape(shown["extracted"] or "–")}</code> · '
            f"sample {shown['number']} · {shown['tokens']:,} tokens · "
            f"{right} of {len(group)} samples right {marks}</div></header>"
            f'<div class="output text">{html.escape(shown["head"])}'
            f"{rest if shown['left_out'] else ''}</div></div>"
        )
