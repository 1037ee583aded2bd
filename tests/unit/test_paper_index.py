"""Figures of docs/papers.md and the three of the README stand where they come from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def figures(text: str) -> list[str]:
    """Numbers as they are written, none that are part of a name."""
    return re.findall(
        r"(?<![\w.,-])[+-]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e-?\d+)?(?![\w-]|\.\d)", text
    )


def test_figures_are_found() -> None:
    text = "MATH-500: +0.35 [-0.1, 1,024], .179 at 1.2e-6, arXiv 2605.11936v2, AIME24"
    assert figures(text) == ["+0.35", "-0.1", "1,024", ".179", "1.2e-6"]
    assert has_figure("so 0.35, too", "+0.35")
    assert not has_figure("10.35 and 0.351", "0.35")


def has_figure(text: str, figure: str) -> bool:
    """Whether a number stands in a text, digit by digit, not as a part of another."""
    return bool(re.search(rf"(?<![\d.]){re.escape(figure.lstrip('+'))}(?![\d]|\.\d)", text))


def rows_of(document: str, columns: int) -> list[list[str]]:
    """Cells of all tables with so many columns, without their heads."""
    lines = (REPOSITORY / document).read_text().splitlines()
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if len(row) == columns]


#: The paper index: paper or table, command, published, measured, page.
PAPERS = [row for row in rows_of("docs/papers.md", 5) if "](" in row[4]]


@pytest.mark.parametrize("row", PAPERS, ids=lambda row: row[0][:40])
def test_figures_of_the_paper_index_stand_where_they_come_from(row: list[str]) -> None:
    _, _, published, measured, page = row
    said = (REPOSITORY / "docs" / re.search(r"\]\((\w+\.md)", page)[1]).read_text()
    assert [figure for figure in figures(measured) if not has_figure(said, figure)] == []
    sources = [
        *(REPOSITORY / "rsp_rl" / "reproduce").glob("*.py"),
        *(REPOSITORY / "recipes").glob("*.sh"),
        REPOSITORY / "docs" / "reproducing.md",
    ]
    known = "\n".join(file.read_text() for file in sources)
    assert [figure for figure in figures(published) if not has_figure(known, figure)] == []


def test_the_paper_index_has_figures() -> None:
    assert len(PAPERS) >= 18
    assert sum(bool(figures(row[3])) for row in PAPERS) >= 9


def test_the_three_numbers_of_the_readme_stand_where_they_come_from() -> None:
    rows = [row for row in rows_of("README.md", 3) if row[0].startswith("**")]
    assert len(rows) == 3
    for number, _, meaning in rows:
        [page] = re.findall(r"\]\((docs/\w+\.md)", meaning)
        said = (REPOSITORY / page).read_text()
        for figure in figures(number.replace("*", "")):
            assert has_figure(said, figure), number
