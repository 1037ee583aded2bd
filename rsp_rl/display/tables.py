"""Tables as csv and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def markdown_row(cells: Iterable[str]) -> str:
    """One row of a table."""
    return f"| {' | '.join(cells)} |"


def markdown_head(names: Sequence[str]) -> list[str]:
    """The first two rows of a table of numbers: names of its columns; numbers stand to the right.

    Args:
        names: The first is the rows' own.
    """
    return [markdown_row(names), markdown_row(["---", *("--:" for _ in names[1:])])]


def csv_text(head: str, rows: Iterable[Iterable[object]]) -> str:
    """A table as csv.

    Args:
        head: Names of the columns with commas between them.
        rows: Values of each row.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head.split(","))
    writer.writerows(rows)
    return text.getvalue()
