"""`rsp-rl analyze trained-or-random`: RSP beside LTPO, TTSV and SoftCoT (paper, Table 1).

One row a method, as `analyze positions` has one a position: accuracy by benchmark, and the paired
difference to the same model's baseline, with 95% bootstrap intervals over problems. A method that
has no folder has no row.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rsp_rl.analysis.conditions import BASELINE, open_conditions
from rsp_rl.analysis.options import add_folders_analysis
from rsp_rl.analysis.position_table import write_table
from rsp_rl.evaluation.protocol import Protocol

RANDOM = "random"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze trained-or-random`."""
    add_folders_analysis(
        commands,
        "trained-or-random",
        analyse,
        help="accuracy by method: random, LTPO, TTSV, SoftCoT (Table 1)",
        description=__doc__,
        output=Path("analysis/trained-or-random"),
    )


def analyse(folders: Sequence[str], output: Path) -> None:
    """Write `trained_or_random.md`, `.csv` and `.png`; print the table.

    Raises as `rsp_rl.analysis.position_table.position_table` does.

    Args:
        folders: `[NAME=]DIR` each.
        output: Where to.
    """
    write_table(
        output,
        open_conditions(folders, method_name),
        name="trained_or_random",
        title="Accuracy by method of the soft prompt (%)",
        row="method",
    )


def method_name(protocol: Protocol) -> str:
    """A condition by what fills its soft prompts, or by the law of one that has none but noise."""
    if protocol.comparator is not None:
        return protocol.comparator.method
    if protocol.rsp.has_added_rows:
        return protocol.rsp.law
    return RANDOM if protocol.rsp.enabled else BASELINE
