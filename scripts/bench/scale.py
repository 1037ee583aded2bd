"""RSP on 4 to 2,048 GPUs, on paper: unit costs measured here, the rest is arithmetic.

    python scripts/bench/scale.py

See `scale_model.py` for the assumptions, all of which are printed and can be changed there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from paired import core_seconds, write_report
from rollout_prompts import Journey
from scale_model import Cluster, UnitCosts, collisions_across_runs, collisions_within_a_run

from rsp_rl.draws.laws import draw_soft_prompt
from rsp_rl.grading import grade, is_correct

GPUS = (4, 32, 256, 2048)
HIDDEN_SIZES = (896, 3584, 8192, 16384)
STEPS = 1000

#: Answers as they are mostly: numbers, fractions, expressions.
OUTPUTS = (
    (r"So the answer is $\boxed{42}$.", "42"),
    (r"Hence \boxed{\frac{3}{4}}.", r"\dfrac{3}{4}"),
    (r"We get $\boxed{x^2+2x+1}$", "(x+1)^2"),
    (r"Therefore the sum is \boxed{17}.", "18"),
)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("scale.json"))
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    costs = measure(args.repeats)
    print(
        f"measured: {1e9 * costs.draw:.1f} ns a number drawn, {1e6 * costs.hashing:.2f} us a "
        f"prompt token in the engine core, {1e3 * costs.grading:.2f} ms a graded output"
    )
    cells = [row(Cluster(gpus, d), costs) for gpus in GPUS for d in HIDDEN_SIZES]
    show(cells)
    largest = Cluster(max(GPUS), max(HIDDEN_SIZES))
    expected = collisions_across_runs(2, largest.rollouts * STEPS)
    print(
        f"seeds: {collisions_within_a_run()} collisions within a run, by construction; "
        f"{expected:.2g} pairs expected between two runs of {STEPS} steps on {max(GPUS)} GPUs"
    )
    results = {
        "unit_costs": asdict(costs),
        "cells": cells,
        "collisions_within_a_run": collisions_within_a_run(),
        "collisions_across_two_runs": expected,
    }
    write_report(args.output, "scale", results)


def measure(repeats: int) -> UnitCosts:
    """Medians, on this machine."""
    length, hidden_size, tokens = 20, 3584, 512
    draw = _median(lambda: draw_soft_prompt(1, length, hidden_size, 0.0, 0.02), repeats)
    plain, record = (
        _median(Journey(way, tokens, hidden_size, "bfloat16").engine_core, repeats)
        for way in ("tokens", "record")
    )
    is_correct("1", "1")  # starts the grader's worker
    grading = _median(lambda: [grade(*pair) for pair in OUTPUTS], repeats) / len(OUTPUTS)
    return UnitCosts(draw / (length * hidden_size), max(0.0, record - plain) / tokens, grading)


def _median(work: Callable[[], Any], repeats: int) -> float:
    return statistics.median(core_seconds(work, 5) for _ in range(repeats))


def row(cluster: Cluster, costs: UnitCosts) -> dict[str, Any]:
    """One cell of the table."""
    shares = cluster.shares(costs)
    return {
        "gpus": cluster.gpus,
        "hidden_size": cluster.hidden_size,
        "draws_per_second": cluster.draws_per_second,
        "record_bytes_per_step": cluster.record_bytes_per_step,
        "drawn_bytes_per_step": cluster.drawn_bytes_per_step,
        "prompt_bytes_as_records": cluster.prompt_bytes(rows=False),
        "prompt_bytes_as_rows": cluster.prompt_bytes(rows=True),
        "ahead_bytes_per_gpu": cluster.ahead_bytes,
        "device_bytes_per_gpu": cluster.device_bytes,
        "grading_cores": cluster.grading_cores(costs),
        "shares": shares,
        "first_to_saturate": max(shares, key=shares.__getitem__),
    }


def show(cells: list[dict[str, Any]]) -> None:
    """The table."""
    print(
        f"\n{'GPUs':>5} {'d':>6} {'draws/s':>9} {'records':>9} {'H would':>9} {'prompts':>9} "
        f"{'as rows':>9} {'ahead':>8} {'device':>8} {'grading':>8}  busiest with RSP\n"
        f"{'':>5} {'':>6} {'cluster':>9} {'MB/step':>9} {'GB/step':>9} {'MB/engine':>9} "
        f"{'GB':>9} {'MB/GPU':>8} {'MB/GPU':>8} {'cores':>8}  share of one core"
    )
    for cell in cells:
        first = cell["first_to_saturate"]
        print(
            f"{cell['gpus']:>5} {cell['hidden_size']:>6} {cell['draws_per_second']:>9,.0f} "
            f"{cell['record_bytes_per_step'] / 1e6:>9.2f} "
            f"{cell['drawn_bytes_per_step'] / 1e9:>9.2f} "
            f"{cell['prompt_bytes_as_records'] / 1e6:>9.0f} "
            f"{cell['prompt_bytes_as_rows'] / 1e9:>9.1f} "
            f"{cell['ahead_bytes_per_gpu'] / 1e6:>8.0f} "
            f"{cell['device_bytes_per_gpu'] / 1e6:>8.1f} "
            f"{cell['grading_cores']:>8.2f}  {first} {cell['shares'][first]:.2%}"
        )


if __name__ == "__main__":
    main()
