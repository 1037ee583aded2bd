"""Figures of an evaluation over training steps, drawn with matplotlib and no display."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from rsp_rl.display import figures
from rsp_rl.display.figures import Point, curve, mark_peak, panels

if TYPE_CHECKING:
    from rsp_rl.evaluation.summary import Summary


_ACCURACY = "accuracy (%), 95% interval"


def headline(summary: Summary) -> Figure:
    """Headline by step with its 95% interval; the peak is marked."""
    figure, axes = panels(1, 1, (7.5, 4.2))
    points = {step: (h.accuracy, h.low, h.high) for step, h in summary.headline.items()}
    curve(axes[0], points, figures.colour(0))
    if summary.peak_step is not None:
        mark_peak(axes[0], points, figures.colour(0))
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
        curve(axis, points, figures.colour(0))
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
            "color": figures.colour(number),
            "marker": figures.marker(number),
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
    figures.legend_below(figure, length, 4)
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
        colour = figures.colour(number)
        curve(axes[0], points, colour, figures.marker(number), name)
        mark_peak(axes[0], points, colour)
    axes[0].set(xlabel="training step", ylabel=f"headline {_ACCURACY}")
    axes[0].legend(frameon=False)
    return figure
