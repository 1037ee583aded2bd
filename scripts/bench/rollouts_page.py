"""What the page of a large run's rollouts costs: seconds, memory and bytes, of made-up samples.

python scripts/bench/rollouts_page.py --steps 100 --output runs/page    # 1.1 GB, kept
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
import uuid
from pathlib import Path

from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.rollouts_page import write_rollouts_page

GROUPS, ROLLOUTS = 512, 16
WORDS = (
    "the",
    "sum",
    "of",
    "x",
    "so",
    "that",
    r"\frac{1}{2}",
    "$x^2$",
    "wait",
    "=",
    "+",
    "3",
    "12",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True, help="a folder for the run")
    args = parser.parse_args()
    folder, draw = RunFolder(args.output), random.Random(0)
    folder.train_samples.mkdir(parents=True)
    for step in range(1, args.steps + 1):
        write_step(folder, step, draw)
    scores = {"critic/score/max": 1.0, "critic/score/min": 0.0, "rsp/logprob_gap_mean": 1e-5}
    begun = time.monotonic()
    page = write_rollouts_page(folder, dict.fromkeys(range(1, args.steps + 1), scores))
    seconds = time.monotonic() - begun
    assert page is not None
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    samples = sum(file.stat().st_size for file in folder.train_samples.iterdir())
    print(f"samples  {samples / 1e9:.2f} GB, {args.steps} steps of {GROUPS * ROLLOUTS:,} rollouts")
    print(
        f"page     {page.stat().st_size / 1e6:.1f} MB in {seconds:.1f} s, {memory:.0f} MB of memory"
    )


def write_step(folder: RunFolder, step: int, draw: random.Random) -> None:
    """A step's samples, with answers of 50 to 400 words."""
    beside = folder.train_samples / f"{step}.rollouts.jsonl"
    with (folder.train_samples / f"{step}.jsonl").open("w") as samples, beside.open("w") as told:
        for _ in range(GROUPS):
            group, chance = uuid.UUID(int=draw.getrandbits(128)), draw.random()
            prompt = f"user\n{' '.join(draw.choices(WORDS, k=30))}\nassistant\n"
            for number in range(ROLLOUTS):
                tokens, right = draw.randint(50, 400), float(draw.random() < chance)
                row = {"uid": f"{group}_{number}_0", "input": prompt, "gts": "12", "score": right}
                row["output"] = " ".join(draw.choices(WORDS, k=tokens))
                samples.write(json.dumps(row) + "\n")
                info = {"acc": right, "pred": "12", "extraction_step": "boxed", "stage": "string"}
                row = {"uid": row["uid"], "tokens": tokens, "gap_mean": 1e-4}
                row |= {"gap_max": draw.random() / 100, "reward_info": info, "before": 5}
                told.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
