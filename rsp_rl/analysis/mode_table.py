"""`rsp-rl analyze modes`: one model, or a run's checkpoints, asked in several modes, side by side.

Reads folders that `rsp-rl eval` wrote under a protocol with modes, such as soft_tokens. A row a
mode and step: pass@1, unbiased pass@n where a mode has n answers a problem, tokens and thoughts,
with 95% bootstrap intervals over problems; below a value its difference to the same mode at the
first step of the first folder, on the same drawn problems. What is not evaluated yet is left out,
and a base model (step 0) that several runs began with is there once.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rsp_rl.analysis.cells import Measure, Table, draw, paired_cells, to_csv, to_markdown
from rsp_rl.analysis.conditions import Condition, check_names, open_conditions, shared_benchmarks
from rsp_rl.analysis.options import add_folders_analysis
from rsp_rl.analysis.outputs import write_analysis
from rsp_rl.analysis.pass_at_n import pass_table
from rsp_rl.basics.errors import RunFolderError
from rsp_rl.display import figures
from rsp_rl.evaluation.comparison import Cell
from rsp_rl.evaluation.folder import EvaluationFolder, Sample, modes_of
from rsp_rl.evaluation.thoughts import thought_count
from rsp_rl.thoughts.laws.token import Token

TOKENS, THOUGHTS = "tokens", "thoughts"

_MAY_DIFFER = ("model", "samples", "temperature", "top_p", "top_k")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze modes`."""
    add_folders_analysis(
        commands,
        "modes",
        analyse,
        help="the modes of an evaluation: pass@1 and pass@n by step",
        description=__doc__,
        output=Path("analysis/modes"),
    )


def analyse(folders: Sequence[str], output: Path) -> None:
    """Write `modes.csv`, `.md`, `.png` and `.svg`; print the table.

    Args:
        folders: `[NAME=]DIR` each, with a folder a mode; a run's name is its folder's by default.
        output: Where to.

    Raises:
        ConfigError: If two folders have the same name.
        RunFolderError: If one holds no modes, or they cannot be compared.
    """
    conditions = list(_conditions(folders))
    check_names([condition for _, condition in conditions])
    table = mode_table(conditions)
    counts = sorted({n for rows in table.values() for row in rows.values() for n in _counts(row)})
    measures = [
        *(Measure(_pass_at(n), percent=True) for n in (1, *counts)),
        Measure(TOKENS),
        Measure(THOUGHTS),
    ]
    markdown = to_markdown("Modes of asking", table, measures)
    if counts:
        markdown += (
            "\nA mode with one answer a problem, as one that draws nothing has, has no "
            f"{' or '.join(map(_pass_at, counts))}.\n"
        )
    modes = list(dict.fromkeys(mode for mode, _ in conditions))
    colours = {c.name: figures.colour(modes.index(mode)) for mode, c in conditions}
    figure = draw(table, measures, lambda _, name: colours[name])
    write_analysis(output, "modes", markdown=markdown, csv=to_csv(table), figure=figure)


def _pass_at(n: int) -> str:
    return f"pass@{n}"


def _counts(row: dict[str, Cell]) -> set[int]:
    """The n above 1 that a row has a pass@n of."""
    return {int(name.removeprefix("pass@")) for name in row if name.startswith("pass@")} - {1}


def _conditions(texts: Sequence[str]) -> Iterator[tuple[str, Condition]]:
    """Every finished mode and step of the folders, the steps of a mode next to each other."""
    found: dict[str, list[tuple[int, Condition]]] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).is_dir():
            name, path = "", text
        root = Path(path)
        if not name and len(texts) > 1:
            name = _run_name(root)
        modes = modes_of(root)
        if not modes:
            raise RunFolderError(
                f"{root} holds no finished evaluation of a protocol with modes; make one with "
                "`rsp-rl eval MODEL --protocol soft_tokens`"
            )
        for folder in modes:
            for number, step in EvaluationFolder(folder).steps().items():
                if not any(step.root.glob("*.metrics.json")):
                    continue
                words = ", ".join(word for word in (folder.name, name, f"step {number}") if word)
                (condition,) = open_conditions([str(step.root)], lambda p: p.name)
                named = replace(condition, name=words)
                found.setdefault(folder.name, []).append((number, named))
    for mode, conditions in found.items():
        _check_asked_alike(mode, [condition for _, condition in conditions])
        for condition in _bases_once(mode, conditions):
            yield mode, condition


def _check_asked_alike(mode: str, conditions: Sequence[Condition]) -> None:
    """Of one mode only model and number of answers may differ, else its name says too little.

    Raises:
        RunFolderError: Naming folders, setting and both values.
    """
    for number, other in enumerate(conditions):
        for benchmark in other.benchmarks:
            first = next(c for c in conditions[: number + 1] if benchmark in c.benchmarks)
            of_first, own = _settings(first, benchmark), _settings(other, benchmark)
            for name in of_first:
                if of_first[name] != own[name]:
                    raise RunFolderError(
                        f"{first.root} and {other.root} are both of mode {mode}, but {benchmark} "
                        f"was asked with {name} {of_first[name]!r} and {own[name]!r}; evaluate one "
                        "of them again, or show them apart"
                    )


def _settings(condition: Condition, benchmark: str) -> dict[str, Any]:
    protocol, plan = condition.protocol, condition.plan(benchmark)
    content = replace(protocol, rsp=replace(protocol.rsp, seed=0)).to_dict()
    comparator = dict(content["comparator"] or {})
    for name in () if protocol.comparator is None else (*protocol.comparator.paths, "preset"):
        comparator.pop(name, None)  # a checkpoint's own; places and names change nothing
    return {
        "template": protocol.template,
        "max_tokens": protocol.max_tokens_of(benchmark),
        "stop": list(protocol.stop),
        "temperature": float(plan.temperature),
        "top_p": float(plan.top_p),
        "top_k": plan.top_k,
        "law": content.get("law"),
        "rsp": content["rsp"] if protocol.rsp.enabled else None,
        "comparator": comparator or None,
    }


def _bases_once(mode: str, conditions: Sequence[tuple[int, Condition]]) -> Iterator[Condition]:
    """One mode's conditions; step 0 of the same weights and benchmarks once, of no run's name."""
    bases = Counter(_base(c) for number, c in conditions if number == 0)
    seen = set()
    for number, condition in conditions:
        shared = number == 0 and bases[_base(condition)] > 1
        if not shared:
            yield condition
        elif _base(condition) not in seen:
            seen.add(_base(condition))
            yield replace(condition, name=f"{mode}, step 0")


def _base(condition: Condition) -> tuple[str, tuple[str, ...]]:
    return condition.manifest["weights"], condition.benchmarks


def _run_name(root: Path) -> str:
    """A run's by its folder, `RUN_DIR/evaluation/PROTOCOL`; else the folder's own."""
    parent = root.absolute().parent
    return parent.parent.name if parent.name == "evaluation" else root.name


def mode_table(conditions: Sequence[tuple[str, Condition]]) -> Table:
    """Every measure of every condition that has a benchmark.

    Args:
        conditions: With the mode of each.

    Raises:
        RunFolderError: If two were asked otherwise than their modes make them.
    """
    names = dict.fromkeys(name for _, condition in conditions for name in condition.benchmarks)
    table = {}
    for benchmark in names:
        there = [(mode, c) for mode, c in conditions if benchmark in c.benchmarks]
        shared_benchmarks([condition for _, condition in there], may_differ=_MAY_DIFFER)
        table[benchmark] = _rows(benchmark, there)
    return table


def _rows(
    benchmark: str, conditions: Sequence[tuple[str, Condition]]
) -> dict[str, dict[str, Cell]]:
    first: dict[str, str] = {}
    references = {c.name: first.setdefault(mode, c.name) for mode, c in conditions}
    values: dict[str, dict[str, np.ndarray]] = {}
    counts = sorted({condition.plan(benchmark).samples for _, condition in conditions} | {1})
    groups = {c.name: list(c.groups(benchmark).values()) for _, c in conditions}
    for _, condition in conditions:
        passed_NP = pass_table(condition, benchmark)
        for n in counts:
            if n <= len(passed_NP):
                values.setdefault(_pass_at(n), {})[condition.name] = passed_NP[n - 1]
        tokens_P = _means(groups[condition.name], lambda sample: sample["tokens"])
        values.setdefault(TOKENS, {})[condition.name] = tokens_P
    for _, condition in conditions:
        law = condition.protocol.law
        if law is not None and law.law.name != Token.name:
            values.setdefault(THOUGHTS, {})[condition.name] = _means(
                groups[condition.name], thought_count
            )
    rows: dict[str, dict[str, Cell]] = {name: {} for name in groups}
    for measure, of_measure in values.items():
        for name, cell in paired_cells(of_measure, references).items():
            rows[name][measure] = cell
    return rows


def _means(groups: Sequence[Sequence[Sample]], value_of: Callable[[Sample], float]) -> np.ndarray:
    return np.array([np.mean([value_of(sample) for sample in group]) for group in groups])
