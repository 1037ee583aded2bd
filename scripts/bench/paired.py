"""Ratios of two ways of doing the same, measured in turn, with the noise of the measurement.

Machines are noisy and get slower and faster while one measures. So each round runs the baseline,
the candidate and the baseline once more, in an order that changes from round to round; the figure
is the median over the rounds of candidate / baseline, and its noise is what the same figure says
about the baseline against itself.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

_RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """Candidate over baseline.

    Attributes:
        value: Median of the rounds' ratios.
        noise: Half width of the 95% interval of the same figure for baseline over baseline.
        baseline: Median of the baseline, in its own unit.
        candidate: Median of the candidate.
    """

    value: float
    noise: float
    baseline: float
    candidate: float

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def compare(
    baseline: Callable[[], float],
    candidates: dict[str, Callable[[], float]],
    rounds: int,
    warm_ups: int = 1,
) -> dict[str, Ratio]:
    """Measure in turn.

    Args:
        baseline: Does the work once and returns what it cost, often `seconds(work)`.
        candidates: The same for the other ways, by name.
        rounds: At least 3.
        warm_ups: Runs of each that do not count.

    Returns:
        Each candidate over the baseline.
    """
    runs = {"baseline": baseline, **candidates, "again": baseline}
    for _ in range(warm_ups):
        for run in (baseline, *candidates.values()):
            run()
    names = list(runs)
    costs: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            costs[name].append(runs[name]())
    taken = {name: np.array(costs[name]) for name in names}
    return {name: ratio(taken["baseline"], taken[name], taken["again"]) for name in candidates}


def ratio(baseline: np.ndarray, candidate: np.ndarray, again: np.ndarray) -> Ratio:
    """From the costs of each round: baseline, candidate, and baseline again, all [rounds]."""
    same = again / baseline
    picks = np.random.default_rng(0).integers(len(same), size=(_RESAMPLES, len(same)))
    medians = np.median(same[picks], axis=1)
    return Ratio(
        value=float(np.median(candidate / baseline)),
        noise=float(np.quantile(np.abs(medians - 1), 0.95)),
        baseline=float(np.median(baseline)),
        candidate=float(np.median(candidate)),
    )


def seconds(
    work: Callable[[], Any], times: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of one call, averaged over several in a row."""
    begun = clock()
    for _ in range(times):
        work()
    return (clock() - begun) / times


def core_seconds(work: Callable[[], Any], times: int = 1) -> float:
    """Of this process's work, whoever else is at work on the machine."""
    return seconds(work, times, time.process_time)


def machine() -> dict[str, Any]:
    """What a figure was measured on, and under which load."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_report(file: Path, benchmark: str, results: dict[str, Any]) -> None:
    """Write results as JSON beside what they were measured on."""
    report = {"benchmark": benchmark, "machine": machine(), **results}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {file}")


def _processor() -> str:
    """The processor's name; its architecture where the system does not say."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
