"""Seconds per training step with and without RSP, side by side, and the peak memory of a run.

Trains the tiny CPU config in turn with and without soft prompts (A B A B ...), the first step of
each run left out, and prints the medians and their ratio: machines are noisy, a ratio within one
run of this script is what can be compared.

    .venv/bin/python scripts/bench/step_time.py --model runs/tiny_model --data runs/tiny_data
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PARTS = ("step", "gen", "old_log_prob", "update_actor", "update_weights")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="tiny model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder of the task's parquet")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each kind")
    parser.add_argument("--steps", type=int, default=8, help="steps a run")
    parser.add_argument("--length", type=int, default=8, help="L of the runs with RSP")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for all runs")
    args = parser.parse_args()

    seconds: dict[int, dict[str, list[float]]] = {}
    peaks: dict[int, list[float]] = {}
    for turn in range(args.rounds):
        for length in (args.length, 0):
            print(f"round {turn + 1} of {args.rounds}, L = {length} ...", flush=True)
            steps, peak = run(args, length)
            for part in PARTS:
                times = seconds.setdefault(length, {}).setdefault(part, [])
                times += [step[f"timing_s/{part}"] for step in steps[1:]]
            peaks.setdefault(length, []).append(peak)

    print(f"\n{'seconds a step':<16} {'L = ' + str(args.length):>8} {'L = 0':>8} {'ratio':>7}")
    for part in PARTS:
        with_rsp, without = (statistics.median(seconds[n][part]) for n in (args.length, 0))
        print(f"{part:<16} {with_rsp:>8.3f} {without:>8.3f} {with_rsp / without:>7.3f}")
    print(f"{'peak GiB':<16} {max(peaks[args.length]):>8.2f} {max(peaks[0]):>8.2f}")


def run(args: argparse.Namespace, length: int) -> tuple[list[dict[str, float]], float]:
    """One training: its steps' metrics, and the peak memory of its process tree in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rsp_rl.train", "--config-name", "tiny_cpu"]
        command += [f"run_dir={folder}", f"actor_rollout_ref.model.path={args.model.resolve()}"]
        data = args.data.resolve()
        command += [f"data.train_files={data}/train.parquet"]
        command += [f"data.val_files={data}/heldout.parquet"]
        command += [f"rsp.length={length}", f"trainer.total_training_steps={args.steps}"]
        command += [
            "trainer.save_freq=-1",
            "trainer.test_freq=-1",
            "trainer.val_before_train=false",
        ]
        log = Path(folder) / "output.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [*command, *args.overrides], stdout=stream, stderr=subprocess.STDOUT
            )
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, tree_memory(process.pid) / 2**30)
                time.sleep(1)
        if process.returncode:
            sys.exit(f"error: training failed:\n{log.read_text()[-3000:]}")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["data"] for line in lines], peak


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
