"""`rsp-rl analyze dials`: soft prompts by length, scale, law or template, side by side.

A row a condition: how often it is right when it is greedy and when it is sampled; of sampled
answers how many tokens they have, and how many different final answers a problem gets, as a share;
and how far the first token's distribution lies from that without a soft prompt (Jensen-Shannon, see
`analyze first-token`). Everything with its 95% bootstrap interval over problems, and its difference
to the reference on the same drawn problems. The reference of a condition with soft prompts is the
one without any under the same template; of one without, it is the first folder.

Folders are told apart by their protocols: the greedy and the sampled evaluation of one condition
share a row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rsp_rl.analysis import first_token
from rsp_rl.analysis.cells import Measure, draw, paired_cells, to_csv, to_markdown
from rsp_rl.analysis.conditions import BASELINE, Condition, check_names, open_conditions
from rsp_rl.analysis.conditions import shared_benchmarks as shared
from rsp_rl.analysis.options import ModelOptions, add_analysis, add_folders
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import RunFolderError
from rsp_rl.dials.options import RspOptions
from rsp_rl.display import figures
from rsp_rl.evaluation.comparison import Cell
from rsp_rl.evaluation.folder import Sample
from rsp_rl.evaluation.protocol import Protocol

GREEDY, SAMPLED, TOKENS, DISTINCT = "right, greedy", "right, sampled", "tokens", "different answers"
SHIFT = "first token, Jensen-Shannon"

#: By measure: whether it is of the greedy answers (else of the sampled), and a problem's value.
_MEASURES: dict[str, tuple[bool, Callable[[Sequence[Sample]], float]]] = {
    GREEDY: (True, lambda samples: float(np.mean([s["correct"] for s in samples]))),
    SAMPLED: (False, lambda samples: float(np.mean([s["correct"] for s in samples]))),
    TOKENS: (False, lambda samples: float(np.mean([s["tokens"] for s in samples]))),
    DISTINCT: (
        False,
        lambda samples: len({s["extracted"] for s in samples}) / len(samples),
    ),
}
_COLUMNS = (
    Measure(GREEDY, percent=True),
    Measure(SAMPLED, percent=True),
    Measure(TOKENS),
    Measure(DISTINCT, percent=True),
    Measure(SHIFT, places=3),
)

_TITLE = "Soft prompts by length, scale, law and template"

_MAY_DIFFER = ("temperature", "top_p", "top_k", "samples", "template")

Row = dict[str, Cell]
"""Cells by measure."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze dials`."""
    parser = add_analysis(
        commands,
        "dials",
        run,
        help="length, scale, law and template side by side",
        description=__doc__,
    )
    add_folders(parser)
    parser.add_argument(
        "--first-token",
        type=count,
        default=64,
        metavar="PROBLEMS",
        help="how many are read for the first token (%(default)s)",
    )
    parser.add_argument("--output", type=Path, default=Path("analysis/dials"))


def run(args: argparse.Namespace) -> int:
    """Write `dials.csv`, `.md` and `.png`; print the table."""
    analyse(args.folders, args.output, first_tokens=args.first_token)
    return 0


def analyse(
    folders: Sequence[str], output: Path, *, name: str = "dials", first_tokens: int | None = 64
) -> None:
    """Write the files of `run`.

    Args:
        folders: `[NAME=]DIR` each, one without soft prompts first.
        output: Where to.
        name: Of the files.
        first_tokens: How many problems are read for the first token; None for no such column.

    Raises:
        ConfigError: If two folders are the same condition.
        RunFolderError: If they cannot be compared, or the first one has soft prompts.
    """
    conditions = open_conditions(folders, lambda protocol: protocol.name)
    templates = len({condition.protocol.template for condition in conditions}) > 1
    conditions = [
        replace(condition, name=dial_name(condition.protocol, templates))
        for condition in conditions
    ]
    table = dials(conditions, first_tokens)
    figure = draw(table, _COLUMNS, _colour)
    markdown = to_markdown(_TITLE, table, _COLUMNS)
    write_analysis(output, name, markdown=markdown, csv=to_csv(table), figure=figure)


def _colour(_: int, name: str) -> str:
    return "#444444" if BASELINE in name else figures.colour(0)


def dial_name(protocol: Protocol, template: bool = False) -> str:
    """A condition by its soft prompts' L, and by scale, law, position and mode that are not usual.

    Args:
        protocol: The condition's.
        template: Whether to name the template as well.
    """
    rsp = protocol.rsp
    words = [f"L = {rsp.length}"] if rsp.enabled else [BASELINE]
    if rsp.has_added_rows:
        words = []  # of no L
    if rsp.enabled:
        words += [
            f"{name} {value:g}" if name == "scale" else str(value)
            for name in ("scale", "law", "position", "mode")
            if (value := getattr(rsp, name)) != getattr(RspOptions, name)
        ]
    return ", ".join([protocol.template, *words] if template else words)


def dials(
    conditions: Sequence[Condition], first_tokens: int | None = None
) -> dict[str, dict[str, Row]]:
    """Every measure of every condition.

    Args:
        conditions: One without soft prompts first; greedy and sampled ones of the same name are
            one row.
        first_tokens: See `analyse`.

    Raises:
        ConfigError: If two are the same condition.
        RunFolderError: If they cannot be compared, or the first one has soft prompts.
    """
    if conditions[0].protocol.rsp.enabled:
        raise RunFolderError(
            f"{conditions[0].root} has soft prompts; name the folder without any first, the others "
            "are compared with it"
        )
    by_kind: dict[bool, dict[str, Condition]] = {}
    for greedy in (True, False):
        kind = [c for c in conditions if _is_greedy(c) == greedy]
        check_names(kind)
        by_kind[greedy] = {condition.name: condition for condition in kind}
    references = references_of(conditions)
    return {
        benchmark: _rows(benchmark, by_kind, references, first_tokens)
        for benchmark in shared(conditions, may_differ=_MAY_DIFFER)
    }


def references_of(conditions: Iterable[Condition]) -> dict[str, str]:
    """By name of a condition, the name of what it is compared with; the first's is its own."""
    conditions = list(conditions)
    without = [c for c in conditions if not c.protocol.rsp.enabled]
    plain = {c.protocol.template: c.name for c in without}
    first = conditions[0].name
    return {
        c.name: plain.get(c.protocol.template, first) if c.protocol.rsp.enabled else first
        for c in conditions
    }


def _is_greedy(condition: Condition) -> bool:
    return all(plan.temperature == 0 for plan in condition.protocol.benchmarks)


def _rows(
    benchmark: str,
    by_kind: Mapping[bool, Mapping[str, Condition]],
    references: Mapping[str, str],
    first_tokens: int | None,
) -> dict[str, Row]:
    rows: dict[str, Row] = {name: {} for name in references}
    for measure, (greedy, value_of) in _MEASURES.items():
        values = {
            name: np.array([value_of(group) for group in condition.groups(benchmark).values()])
            for name, condition in by_kind[greedy].items()
        }
        for name, cell in paired_cells(values, references).items():
            rows[name][measure] = cell
    if first_tokens:
        for name, condition in {**by_kind[False], **by_kind[True]}.items():
            if condition.protocol.rsp.enabled:
                rows[name][SHIFT] = _shift(condition, benchmark, first_tokens)
    return rows


def _shift(condition: Condition, benchmark: str, problems: int) -> Cell:
    """How far a condition's first token is from that of the same prompt without a soft prompt."""
    model = ModelOptions().load(condition)
    rows = first_token.measure(model, benchmark, condition.name, problems, 1)
    found = first_token.estimates({condition.name: rows[condition.name]})[condition.name]
    return Cell(found["js_divergence"], None)
