"""What asynchronous training saves: rsp_sync against rsp_async, tokens a second of whole steps.

Trains the tiny CPU config in turn (A B A B ...) on random weights, whose responses end by chance: a
few are long and most are short, which is what a synchronous step waits for. The model is slow
enough for an update to interrupt some. Of each run the first steps are left out: they hold
warm-ups, and the asynchronous trainer's first batches of all. Beside the ratio stands the noise:
that of the two halves of the synchronous runs' steps.

    .venv/bin/python scripts/bench/async_training.py --output runs/bench/async_training.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tiny_training import make_inputs, training_command

from rsp_rl.basics.files import write_json
from rsp_rl.training.asynchronous import TRAINER_MODES

LEFT_OUT = 2
WORKLOAD = (
    "data.max_response_length=768",
    "data.train_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.rollout.top_k=-1",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
    "trainer.val_before_train=false",
)
SHOWN = {
    "response tokens, mean": "response_length/mean",
    "response tokens, most": "response_length/max",
    "stale tokens": "rsp/stale_tokens",
    "mixed rollouts": "rsp/mixed_rollouts",
    "updates, mean": "rsp/age_mean",
}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--steps", type=int, default=8, help="steps a run")
    parser.add_argument("--hidden-size", type=int, default=384, help="d of the model")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model")
    parser.add_argument("--output", type=Path, help="the figures as json")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for all runs")
    args = parser.parse_args()

    steps: dict[str, list[list[dict[str, float]]]] = {mode: [] for mode in TRAINER_MODES}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder)
        make_inputs(inputs, hidden_size=args.hidden_size, num_layers=args.layers)
        for turn in range(args.rounds):
            for mode in TRAINER_MODES:
                print(f"round {turn + 1} of {args.rounds}, {mode} ...", file=sys.stderr)
                run = train(inputs, args.steps, f"trainer.v1.trainer_mode={mode}", *args.overrides)
                steps[mode].append(run[LEFT_OUT:])
    found = figures(steps)
    for mode in TRAINER_MODES:
        print(f"\n{mode}")
        for name, value in found[mode].items():
            print(f"  {name:<24} {value:.3f}")
    print(f"\ntokens a second, asynchronous / synchronous, by round: {found['ratios']}")
    print(f"median {found['ratio']:.2f}; synchronous against itself: {found['noise']:.2f}")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, {**found, "rounds": args.rounds, "steps": args.steps})


def figures(steps: dict[str, list[list[dict[str, float]]]]) -> dict[str, Any]:
    """By mode means over steps, and how many times the tokens a second.

    Args:
        steps: By mode a run's steps, a list each.
    """
    found: dict[str, Any] = {}
    for mode, runs in steps.items():
        every = [step for run in runs for step in run]
        known = {
            name: [step[metric] for step in every if step.get(metric) is not None]
            for name, metric in SHOWN.items()
        }
        found[mode] = {
            "seconds a step": statistics.mean(step["timing_s/step"] for step in every),
            "of these generation": statistics.mean(step["timing_s/gen"] for step in every),
            "response tokens a second": rate(every),
            **{name: statistics.mean(values) for name, values in known.items() if values},
        }
    synchronous, asynchronous = (steps[mode] for mode in TRAINER_MODES)
    ratios = [rate(b) / rate(a) for a, b in zip(synchronous, asynchronous, strict=True)]
    halves = [rate([step for run in synchronous for step in run[at::2]]) for at in (0, 1)]
    found["ratios"] = [round(ratio, 3) for ratio in ratios]
    found["ratio"] = statistics.median(ratios)
    found["noise"] = max(halves) / min(halves)
    return found


def rate(steps: list[dict[str, float]]) -> float:
    """Response tokens that were trained on a second."""
    tokens = sum(step["response_length/mean"] * step["rsp/rollouts"] for step in steps)
    return tokens / sum(step["timing_s/step"] for step in steps)


def train(inputs: Path, steps: int, *overrides: str) -> list[dict[str, float]]:
    """One training: its steps' metrics."""
    with tempfile.TemporaryDirectory() as folder:
        command = training_command(inputs, Path(folder), steps, *WORKLOAD, *overrides)
        log = Path(folder) / "output.log"
        with log.open("w") as stream:
            done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            sys.exit(f"error: training failed:\n{log.read_text()[-3000:]}")
        lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["data"] for line in lines]


if __name__ == "__main__":
    main()
