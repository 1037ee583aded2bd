"""Figures of an evaluation over training steps, drawn with matplotlib and no display."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from rsp_rl.evaluation.summary import Summary

#: Okabe and Ito's colours, told apart by readers who are colour-blind and on both backgrounds.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8860b")
#: As many markers, for the same reason.
MARKERS = "osD^vP*X"

_INK = "#222222"
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_ACCURACY = "accuracy (%), 95% interval"

Point = tuple[float, float, float]
"""A value with its interval: accuracy, low, high; fractions."""


def headline(summary: Summary) -> Figure:
    """Headline by step with its 95% interval; the peak is marked."""
    figure, axes = panels(1, 1, (7.5, 4.2))
    points = {step: (h.accuracy, h.low, h.high) for step, h in summary.headline.items()}
    curve(axes[0], points, COLOURS[0])
    if summary.peak_step is not None:
        mark_peak(axes[0], points, COLOURS[0])
    axes[0].set_title(f"Headline: mean of {', '.join(summary.headline_benchmarks)}", fontsize=10)
    axes[0].set(xlabel="training step", ylabel=_ACCURACY)
    return figure


def benchmarks(summary: Summary) -> Figure:
    """One panel a benchmark: accuracy by step with its 95% interval."""
    columns = min(4, len(summary.benchmarks))
    rows = math.ceil(len(summary.benchmarks) / columns)
    figure, axes = panels(rows, columns, (3.1 * columns + 0.6, 2.5 * rows + 0.4))
    for axis, name in zip(axes, summary.benchmarks, strict=False):
        points = {
            step: (m[name]["accuracy"], m[name]["accuracy_low"], m[name]["accuracy_high"])
            for step, m in summary.metrics.items()
            if name in m
        }
        curve(axis, points, COLOURS[0])
        axis.set_title(name, fontsize=10)
    for axis in axes[len(summary.benchmarks) :]:
        axis.remove()
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel(_ACCURACY, fontsize=10)
    return figure


def response_length(summary: Summary) -> Figure:
    """Mean tokens and share of outputs that the token limit cut off, by step and benchmark."""
    figure, (length, cut_off) = panels(1, 2, (10, 4.2))
    for number, name in enumerate(summary.benchmarks):
        done = {step: m[name] for step, m in summary.metrics.items() if name in m}
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 4,
            "label": name,
        }
        length.plot(list(done), [m["tokens_mean"] for m in done.values()], **style)
        cut_off.plot(list(done), [100 * m["truncation_rate"] for m in done.values()], **style)
    length.set_title("Response length", fontsize=10)
    length.set(xlabel="training step", ylabel="mean tokens")
    length.set_ylim(bottom=0)
    cut_off.set_title("Outputs cut off at the token limit", fontsize=10)
    cut_off.set(xlabel="training step", ylabel="share (%)")
    cut_off.set_ylim(bottom=0)
    handles, labels = length.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


BY_STEP: dict[str, Callable[[Summary], Figure]] = {
    "headline": headline,
    "response_length": response_length,
    "benchmarks": benchmarks,
}
"""Figures of one run by the name of their file."""


def runs(curves: Mapping[str, Mapping[int, Point]]) -> Figure:
    """The paper's Figure 5: headline by step for each run, with bands, peaks marked."""
    figure, axes = panels(1, 1, (7.5, 4.5))
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        curve(axes[0], points, colour, MARKERS[number % len(MARKERS)], name)
        mark_peak(axes[0], points, colour)
    axes[0].set(xlabel="training step", ylabel=f"headline {_ACCURACY}")
    axes[0].legend(frameon=False)
    return figure


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
