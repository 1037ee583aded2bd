"""The matrix as text, JSON and picture: what each cell gave, by cell and by factor."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from parity.layouts import ACTOR_LAYOUTS, ROLLOUT_LAYOUTS, ActorLayout, RolloutLayout
from parity.measure import Gap

#: Nats. What the mean gap with RSP may differ from the one without: a unit in the last place of an
#: fp32 log-prob between 4 and 8.
GAP_TOLERANCE = 5e-7
#: Nats. No single token may be further off: ten units in the last place of a log-prob near -16.
TOKEN_TOLERANCE = 2e-5
#: Relative, of the parameter tensor that is worst.
GRADIENT_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Cell:
    """One rollout layout against one actor layout.

    Attributes:
        rollout: vLLM's layout.
        actor: The actor's layout.
        with_rsp: The gap with soft prompts; None where the cell did not run.
        without: The gap without.
        gradient_error: The actor layout's, with soft prompts.
        stand_ins: What took the place of a part that needs a GPU.
        refused: Why the cell cannot run here; None if it ran.
    """

    rollout: RolloutLayout
    actor: ActorLayout
    with_rsp: Gap | None = None
    without: Gap | None = None
    gradient_error: float | None = None
    stand_ins: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def faults(self) -> list[str]:
        """What is wrong with it; empty if the cell is as it must be, or did not run."""
        if self.refused:
            return []
        faults = []
        if not abs(self.with_rsp.mean - self.without.mean) <= GAP_TOLERANCE:
            faults.append("the mean gap with RSP is not the one without")
        if not max(self.with_rsp.max, self.without.max) <= TOKEN_TOLERANCE:
            faults.append("a token's gap is beyond rounding")
        if not self.gradient_error <= GRADIENT_TOLERANCE:
            faults.append("the gradient is not the reference's")
        return faults

    def line(self) -> str:
        """One line of the table."""
        head = f"{describe(self.actor)} | {describe(self.rollout)} | "
        if self.refused:
            return head + f"cannot run: {self.refused}"
        return head + (
            f"with RSP {self.with_rsp.mean:.2e} max {self.with_rsp.max:.2e} | "
            f"without {self.without.mean:.2e} max {self.without.max:.2e} | "
            f"gradient {self.gradient_error:.1e} | {'; '.join(self.faults) or 'ok'}"
            f"{', stand-in' if self.stand_ins else ''}"
        )


def describe(layout: ActorLayout | RolloutLayout) -> str:
    """A layout in words, at a fixed width."""
    if isinstance(layout, RolloutLayout):
        return (
            f"tp {layout.tensor_parallel} {'prefix' if layout.prefix_caching else '':<6} "
            f"{'chunked' if layout.chunked_prefill else '':<7}"
        )
    return (
        f"{layout.strategy:<5} {'packed' if layout.packed else 'padded'} "
        f"{layout.ranks} rank{'s' if layout.ranks > 1 else ' '} Ulysses {layout.ulysses} "
        f"{'ckpt' if layout.checkpointing else '':<4} {'LoRA' if layout.lora else '':<4} "
        f"{'dynamic' if layout.dynamic else 'fixed':<7}"
    )


_FIGURES = {
    "mean with": lambda cell: cell.with_rsp.mean,
    "without": lambda cell: cell.without.mean,
    "differ by": lambda cell: abs(cell.with_rsp.mean - cell.without.mean),
    "max with": lambda cell: cell.with_rsp.max,
    "without ": lambda cell: cell.without.max,
    "gradient": lambda cell: cell.gradient_error,
}


def by_factor(cells: Iterable[Cell]) -> str:
    """The worst figures of all cells that share one factor's value, a line each."""
    cells = list(cells)
    groups = [("all", "", cells)]
    for part, kind in (("actor", ActorLayout), ("rollout", RolloutLayout)):
        for field in fields(kind):
            of: dict[Any, list[Cell]] = {}
            for cell in cells:
                of.setdefault(getattr(getattr(cell, part), field.name), []).append(cell)
            groups += [(field.name, str(value), chosen) for value, chosen in of.items()]
    lines = [
        f"{'factor':<16} {'value':<7} {'ran':>5} {'not':>5} "
        + " ".join(f"{name.strip():>9}" for name in _FIGURES)
    ]
    for name, value, chosen in groups:
        ran = [cell for cell in chosen if not cell.refused]
        worst = [max(map(figure, ran)) for figure in _FIGURES.values()] if ran else []
        lines.append(
            f"{name:<16} {value:<7} {len(ran):>5} {len(chosen) - len(ran):>5} "
            + " ".join(f"{figure:>9.2e}" for figure in worst)
        )
    return "\n".join(lines)


def refusals(cells: Iterable[Cell]) -> str:
    """Why cells cannot run, and how many: a line a reason."""
    counts = Counter(cell.refused for cell in cells if cell.refused)
    return "\n".join(f"{count:>5} cells cannot run: {why}" for why, count in counts.most_common())


def save_json(file: Path, cells: Iterable[Cell], notes: dict) -> None:
    """All cells and the notes, with the tolerances that they were held to."""
    tolerances = {"gap": GAP_TOLERANCE, "token": TOKEN_TOLERANCE, "gradient": GRADIENT_TOLERANCE}
    rows = [{**asdict(cell), "faults": cell.faults} for cell in cells]
    content = {"tolerances": tolerances, "notes": notes, "cells": rows}
    file.write_text(json.dumps(content, indent=1))


def plot(file: Path, cells: Iterable[Cell]) -> None:
    """A heat map of the gaps without and with RSP and of the gradient error; grey did not run.

    Args:
        file: A .png.
        cells: Any part of the matrix.
    """
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib.colors import LogNorm

    def row_key(layout: ActorLayout) -> tuple:
        return layout.strategy, layout.packed, layout.lora, layout.checkpointing, layout.dynamic

    rows = list(dict.fromkeys(map(row_key, ACTOR_LAYOUTS)))
    groups = list(dict.fromkeys((layout.ranks, layout.ulysses) for layout in ACTOR_LAYOUTS))
    columns = list(itertools.product(groups, ROLLOUT_LAYOUTS))
    cells = [cell for cell in cells if not cell.refused]
    maps = {kind: np.full((len(rows), len(columns)), np.nan) for kind in ("without", "with")}
    gradients = np.full((len(rows), len(groups)), np.nan)
    for cell in cells:
        row, group = rows.index(row_key(cell.actor)), (cell.actor.ranks, cell.actor.ulysses)
        column = columns.index((group, cell.rollout))
        maps["with"][row, column] = cell.with_rsp.mean
        maps["without"][row, column] = cell.without.mean
        gradients[row, groups.index(group)] = cell.gradient_error

    figure, axes = plt.subplots(
        1, 3, figsize=(19, 8.5), width_ratios=(8, 8, 2), layout="constrained", sharey=True
    )
    colours = plt.get_cmap("viridis").with_extremes(bad="0.88")
    size = len(ROLLOUT_LAYOUTS)
    plain = [cell.actor for cell in cells if not cell.stand_ins]
    stood_in = [cell.actor for cell in cells if cell.stand_ins]
    starred_rows = {*map(row_key, stood_in)} - {*map(row_key, plain)}
    starred_groups = {(a.ranks, a.ulysses) for a in stood_in if a.ulysses > 1}
    names = [
        f"{group[0]} rank{'s'[: group[0] > 1]}\nUlysses {group[1]}{'*' * (group in starred_groups)}"
        for group in groups
    ]
    for axis, kind in zip(axes, maps, strict=False):
        image = axis.imshow(
            maps[kind], aspect="auto", cmap=colours, norm=LogNorm(1e-7, 1e-5), interpolation="none"
        )
        axis.set_title(f"mean |log p_rollout - log p_actor|, {kind} RSP")
        axis.set_xticks([size * n + size / 2 - 0.5 for n in range(len(groups))], names)
        for edge in range(size, len(columns), size):
            axis.axvline(edge - 0.5, color="white", linewidth=2)
    figure.colorbar(image, ax=axes[:2], label="nats", pad=0.01, aspect=40)
    image = axes[2].imshow(
        gradients, aspect="auto", cmap=colours, norm=LogNorm(1e-7, 1e-5), interpolation="none"
    )
    axes[2].set_title("gradient error, with RSP")
    axes[2].set_xticks(range(len(groups)), [f"{ranks}\nU{ulysses}" for ranks, ulysses in groups])
    figure.colorbar(image, ax=axes[2], label="relative to the reference", aspect=40)
    axes[0].set_yticks(
        range(len(rows)),
        [
            f"{row[0]}{'*' * (row in starred_rows)} {'packed' if row[1] else 'padded'}"
            f"{' LoRA' * row[2]}{' ckpt' * row[3]}{' dynamic' * row[4]}"
            for row in rows
        ],
        fontsize=8,
    )
    for axis in axes:
        for edge in range(8, len(rows), 8):
            axis.axhline(edge - 0.5, color="white", linewidth=2)
    order = ", ".join(
        f"{n}: {' '.join(describe(layout).split())}" for n, layout in enumerate(ROLLOUT_LAYOUTS, 1)
    )
    legend = (
        "grey: cannot run here, or not measured; *: with a stand-in for a part that needs a GPU"
    )
    figure.supxlabel(f"columns of each group, vLLM's layout: {order}\n{legend}", fontsize=9)
    figure.savefig(file, dpi=110)
    plt.close(figure)
