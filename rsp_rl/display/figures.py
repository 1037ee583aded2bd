"""The style of this package's figures, drawn with matplotlib and no display."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

#: Okabe and Ito's colours, told apart by readers who are colour-blind and on both backgrounds.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8860b")
#: As many markers, for the same reason.
MARKERS = "osD^vP*X"

_INK = "#222222"
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

Point = tuple[float, float, float]
"""A value with its interval: accuracy, low, high; fractions."""


def curve(
    axis: Axes, points: Mapping[int, Point], colour: str, marker: str = "o", label: str = ""
) -> None:
    """Accuracy by step in percent, with its interval as a band, or as a bar if there is one step.

    Args:
        axis: Where to draw.
        points: Fractions by step.
        colour: Of line and band.
        marker: matplotlib's.
        label: For the legend.
    """
    steps = list(points)
    values, low, high = ([100 * point[i] for point in points.values()] for i in range(3))
    axis.plot(steps, values, color=colour, marker=marker, markersize=4, label=label or None)
    if len(steps) == 1:
        axis.vlines(steps, low, high, color=colour, alpha=0.4, linewidth=3)
    else:
        axis.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


def mark_peak(axis: Axes, points: Mapping[int, Point], colour: str) -> None:
    """Ring the highest point and write its value beside it."""
    step = max(points, key=lambda step: points[step][0])
    value = 100 * points[step][0]
    axis.plot(step, value, "o", markersize=11, fillstyle="none", color=colour)
    axis.annotate(
        f"{value:.2f}", (step, value), (0, 9), textcoords="offset points", ha="center", color=colour
    )


def colour(number: int) -> str:
    """Colour of a figure's curve, by its number from 0; after the last they begin again."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Marker of a figure's curve, likewise."""
    return MARKERS[number % len(MARKERS)]


def legend_below(figure: Figure, axis: Axes, columns: int) -> None:
    """A legend of what one panel shows, as all do, under the figure."""
    figure.legend(
        *axis.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def save(figure: Figure, file: Path) -> None:
    """Write a PNG whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", dpi=150)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that takes its ink from the page, dark or light."""
    text = io.StringIO()
    # Real text instead of outlines: a tenth of the size, and searchable.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rsp_rl"}):
        figure.savefig(text, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure in this package's style; `size` in inches."""
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(_INK)
        axis.tick_params(colors=_INK, labelsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axis.grid(color="#888888", alpha=0.25)
    return figure, axes
