"""Figures as files: whole, the same every time, and readable on both backgrounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from rsp_rl.display import figures

POINTS = {0: (0.3, 0.2, 0.4), 10: (0.9, 0.8, 0.95), 20: (0.7, 0.6, 0.8)}


def drawn() -> Figure:
    figure, (axis,) = figures.panels(1, 1, (3, 2))
    figures.curve(axis, POINTS, figures.COLOURS[0])
    figures.mark_peak(axis, POINTS, figures.COLOURS[0])
    return figure


def test_svg_takes_its_ink_from_the_page_and_is_the_same_every_time() -> None:
    svg = figures.to_svg(drawn())
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert "#222222" not in svg
    assert ">90.00<" in svg  # the peak, in percent, as text
    assert figures.to_svg(drawn()) == svg


def test_a_png_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "curve.png"
    figures.save(drawn(), file)
    before = file.read_bytes()
    assert before.startswith(b"\x89PNG")

    def full_disk(_: Figure, path: Path, **__: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="no space"):
        figures.save(drawn(), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
