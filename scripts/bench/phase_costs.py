"""What a token costs in each phase of a step, of runs beside each other.

    python scripts/bench/phase_costs.py token=runs/token/seed_* multiplex=runs/multiplex/seed_*

From the runs' own `metrics.jsonl`: seconds of a phase over all tokens of the step, in milliseconds;
medians over the steps of all runs of a name, with quartiles, and over those of the first name.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

PHASES = ("gen", "old_log_prob", "update_actor", "step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="a later RUN has the last NAME")
    groups: dict[str, list[Path]] = {}
    for given in parser.parse_args().runs:
        name, _, run = given.rpartition("=")
        name = name or (list(groups) or [""])[-1]
        if not name:
            parser.error(f"{given}: the first run has no name; give NAME=RUN")
        groups.setdefault(name, []).append(Path(run))
    print("| ms a token | " + " | ".join(groups) + " |")
    print("|---" * (len(groups) + 1) + "|")
    for phase in PHASES:
        found = {name: costs(runs, phase) for name, runs in groups.items()}
        base = statistics.median(next(iter(found.values())))
        cells = [cell(values, base) for values in found.values()]
        print(f"| {phase} | " + " | ".join(cells) + " |")


def costs(runs: list[Path], phase: str) -> list[float]:
    """Of every step of some runs, ms."""
    rows = [
        json.loads(line)["data"]
        for run in runs
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    name = f"timing_s/{phase}"
    return [1000 * row[name] / row["perf/total_num_tokens"] for row in rows if name in row]


def cell(values: list[float], base: float) -> str:
    """Median [quartiles], and the ratio to another's."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.2f} [{low:.2f}, {high:.2f}], {median / base:.2f} x"


if __name__ == "__main__":
    main()
