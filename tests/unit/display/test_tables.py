"""Tables as text."""

from __future__ import annotations

import csv

from rsp_rl.display.tables import csv_text, markdown_row


def test_csv_reads_back_whatever_its_cells_hold() -> None:
    rows = [["a,b", 1.5], ['"quoted"', -2], ["two\nlines", ""]]
    text = csv_text("name,value", rows)
    assert text.startswith("name,value\n")
    assert "\r" not in text
    read = list(csv.reader(text.splitlines(keepends=True)))
    assert read == [["name", "value"], *([str(cell) for cell in row] for row in rows)]


def test_markdown_row() -> None:
    assert markdown_row(["a", "b"]) == "| a | b |"
