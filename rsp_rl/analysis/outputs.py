"""What every analysis leaves behind: a table to read, a table to compute with, a figure."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from rsp_rl.basics.files import write_whole
from rsp_rl.display import figures


def write_analysis(folder: Path, name: str, *, markdown: str, csv: str, figure: Figure) -> None:
    """Write `<name>.md`, `.csv`, `.png` and `.svg`; print the table and where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{name}.md", markdown)
    write_whole(folder / f"{name}.csv", csv)
    figures.save(figure, folder / f"{name}.png")
    write_whole(folder / f"{name}.svg", figures.to_svg(figure))
    print(f"{markdown}\nwritten to {folder}")
