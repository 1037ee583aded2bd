"""Where the time from the command to the first training step goes, on a CPU.

    python scripts/bench/startup.py                # twice each way, 5 minutes
    python scripts/bench/startup.py --rounds 1 trainer.val_before_train=false

The tiny recipe's training, in turn as it starts by itself (`rsp_rl.training.preloaded_python`) and
as Ray starts its workers otherwise. A stage ends with the first line of output that tells of its
end.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paired import write_report
from tiny_training import make_inputs, training_command

#: Stages in order, with what the output has when each has ended.
STAGES = {
    "driver: imports, checks": r"mu_E=",
    "driver: verl": r"All configuration checks passed",
    "Ray": r"Started a local Ray instance",
    "trainer process": r"\(TaskRunner pid=",
    "data": r"dataloader initialized",
    "actor: process, model, FSDP": r"actor and ref model engine initialized",
    "vLLM: process": r"\(SoftPromptVLLMServer pid=",
    "vLLM: engine; agent loops; validation of step 0": r"Training Progress:",
    "step 1": r"step:1 - ",
}

GOAL_S = 60.0

WAYS = {
    "preloaded": [],
    "plain": [f"+ray_kwargs.ray_init.runtime_env.py_executable={sys.executable}"],
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("startup.json"))
    parser.add_argument("--rounds", type=int, default=2, help="starts of each way")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides")
    args = parser.parse_args()
    ends: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        make_inputs(inputs)
        for number in range(args.rounds):
            for way in list(WAYS)[:: -1 if number % 2 else 1]:
                print(f"round {number + 1} of {args.rounds}, {way} ...", file=sys.stderr)
                ends[way].append(start(inputs, [*WAYS[way], *args.overrides]))
    medians = {way: [statistics.median(run[n] for run in runs) for n in range(len(STAGES))]
               for way, runs in ends.items()}  # fmt: skip
    print(f"{'seconds':<50}" + "".join(f"{way:>12}" for way in WAYS))
    for number, stage in enumerate(STAGES):
        spent = [m[number] - (m[number - 1] if number else 0) for m in medians.values()]
        print(f"{stage:<50}" + "".join(f"{seconds:>12.1f}" for seconds in spent))
    print(f"{'to the end of step 1 (goal 60)':<50}"
          + "".join(f"{m[-1]:>12.1f}" for m in medians.values()))  # fmt: skip
    write_report(
        args.output,
        "startup",
        {"stages": list(STAGES), "goal_s": GOAL_S, "overrides": args.overrides, "ends_s": ends},
    )


def start(inputs: Path, overrides: list[str]) -> list[float]:
    """One training of one step: when each stage ended, in seconds since the command."""
    with tempfile.TemporaryDirectory() as folder:
        command = training_command(inputs, Path(folder), 1, *overrides)
        ends: list[float] = []
        patterns = list(STAGES.values())
        lines = []
        begun = time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            for line in process.stdout:
                lines.append(line)
                while len(ends) < len(patterns) and re.search(patterns[len(ends)], line):
                    ends.append(time.monotonic() - begun)
        if process.returncode or len(ends) < len(patterns):
            missing = list(STAGES)[len(ends) :][:1]
            print("".join(lines[-40:]), file=sys.stderr)
            sys.exit(f"error: training failed, or said nothing of {missing}")
        return ends


if __name__ == "__main__":
    main()
