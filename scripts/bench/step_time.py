"""What RSP costs a training step: DAPO + RSP against DAPO, by phase, beside its floor.

Trains the tiny CPU config in turn with and without soft prompts (A B A B ...). The model has random
weights, so that its responses are as long with soft prompts as without: they end by chance or at
`data.max_response_length`. A phase's floor is the ratio of the tokens that the two kinds of run
sent through it; the rest of a ratio is overhead. Each run's first step is left out (it holds
warm-ups), medians are over all others, and the last column is the noise: the ratio of the two
halves of the runs without RSP.

    .venv/bin/python scripts/bench/step_time.py --output runs/bench/step_time.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from tiny_training import make_inputs, training_command

from rsp_rl.basics.files import write_json

PHASES = ("gen", "old_log_prob", "adv", "update_actor", "update_weights", "step")


@dataclass(frozen=True)
class Step:
    """One training step: seconds by phase, tokens of its sequences."""

    seconds: dict[str, float]
    tokens: float


@dataclass(frozen=True)
class Row:
    """One phase: medians in seconds, their ratio, its floor, and the noise of a ratio."""

    phase: str
    with_rsp_s: float
    without_s: float
    ratio: float
    floor: float
    noise: float


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2, help="runs of each kind")
    parser.add_argument("--steps", type=int, default=8, help="steps a run")
    parser.add_argument("--length", type=int, default=8, help="L of the runs with RSP")
    parser.add_argument("--hidden-size", type=int, default=128, help="d of the model")
    parser.add_argument("--layers", type=int, default=2, help="layers of the model")
    parser.add_argument("--output", type=Path, help="the table as json")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for all runs")
    args = parser.parse_args()

    steps: dict[int, list[Step]] = {args.length: [], 0: []}
    peaks: dict[int, float] = {args.length: 0.0, 0: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        make_inputs(inputs, hidden_size=args.hidden_size, num_layers=args.layers)
        for turn in range(args.rounds):
            for length in steps:
                print(f"round {turn + 1} of {args.rounds}, L = {length} ...", file=sys.stderr)
                run, peak = train(inputs, args, length)
                steps[length] += run[1:]
                peaks[length] = max(peaks[length], peak)

    rows = table(steps[args.length], steps[0])
    print(f"\n{'':<15} {'L = ' + str(args.length):>8} {'L = 0':>8} ratio  floor  above  noise")
    for row in rows:
        above = row.ratio / row.floor
        print(
            f"{row.phase:<15} {row.with_rsp_s:>7.3f}s {row.without_s:>7.3f}s {row.ratio:.3f}  "
            f"{row.floor:.3f}  {above:.3f}  {row.noise:.3f}"
        )
    print(f"{'peak GiB':<15} {peaks[args.length]:>8.2f} {peaks[0]:>8.2f}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        rows_json = [asdict(row) for row in rows]
        names = ("length", "rounds", "steps", "hidden_size", "layers", "overrides")
        settings = {name: getattr(args, name) for name in names}
        write_json(args.output, {**settings, "phases": rows_json, "peak_gib": peaks})


def table(with_rsp: list[Step], without: list[Step]) -> list[Row]:
    """Medians, ratios and floors by phase."""
    tokens = [statistics.mean(step.tokens for step in kind) for kind in (with_rsp, without)]
    half = len(without) // 2
    rows = []
    for phase in PHASES:
        a, b = (
            statistics.median(step.seconds[phase] for step in kind) for kind in (with_rsp, without)
        )
        halves = [
            statistics.median(step.seconds[phase] for step in part)
            for part in (without[:half], without[half:])
        ]
        # A weight sync moves the same weights, whatever the prompts were.
        floor = 1.0 if phase == "update_weights" else tokens[0] / tokens[1]
        rows.append(Row(phase, a, b, a / b, floor, max(halves) / min(halves)))
    return rows


def train(inputs: Path, args: argparse.Namespace, length: int) -> tuple[list[Step], float]:
    """One training: its steps, and the peak memory of its process tree in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = training_command(
            inputs,
            Path(folder),
            args.steps,
            f"rsp.length={length}",
            "trainer.val_before_train=false",
            *args.overrides,
        )
        log = Path(folder) / "output.log"
        with log.open("w") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, tree_memory(process.pid) / 2**30)
                time.sleep(4)  # reading PSS is work for the kernel, on the cores that are measured
        if process.returncode:
            sys.exit(f"error: training failed:\n{log.read_text()[-3000:]}")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
        logged = [json.loads(line)["data"] for line in lines]
        steps = [
            Step(
                {phase: step[f"timing_s/{phase}"] for phase in PHASES},
                step["perf/total_num_tokens"],
            )
            for step in logged
        ]
        return steps, peak


def tree_memory(pid: int) -> float:
    """Bytes of a process and its descendants, shared pages counted once (PSS)."""
    total = 0
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


if __name__ == "__main__":
    main()
