"""The parity matrix: rollout against actor, with RSP and without, in every layout of both.

vLLM samples the same prompts with and without soft prompts in each of its layouts (tensor parallel,
prefix caching, chunked prefill); verl's actor engine scores all of them in each of its own (FSDP1
and FSDP2, padded and packed, ranks, Ulysses, gradient checkpointing, LoRA, dynamic batch size), and
its gradient is compared with that of one plain PyTorch process in float64. A cell is one layout of
vLLM against one of the actor. With LoRA, vLLM runs the merged weights and the actor the adapters.

    .venv/bin/python scripts/parity_matrix.py                      # all of it, an hour on 2 cores
    .venv/bin/python scripts/parity_matrix.py --time-limit 300     # a part; again for the next one
    .venv/bin/python scripts/parity_matrix.py --actors 'fsdp2-packed-*' --rollouts 'tp1-*'

On a CPU, in fp32. What is measured is kept in `--output`, so that a run can be stopped and taken up
again; a cell that cannot run says why, and costs no other cell anything. Where a part of the GPU
stack is missing, a stand-in takes its place (`scripts/parity/stand_ins.py`) and the cell says so.

Exit status: 0 if in every cell that ran the gap with RSP equals that without and the gradient
equals the reference, to the tolerances in `scripts/parity/report.py`; 1 if not; 3 if the time limit
came first.
"""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import transformers

from parity.layouts import ACTOR_LAYOUTS, ROLLOUT_LAYOUTS
from parity.matrix import Matrix, OutOfTimeError
from parity.models import make_policies
from parity.report import by_factor, plot, refusals, save_json

INCOMPLETE = 3


def main() -> None:
    """Measure what is missing; print, save and judge what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/parity"), help="folder")
    parser.add_argument("--model", type=Path, help="Hugging Face folder; a random tiny one if none")
    globs = {"nargs": "+", "default": ["*"], "metavar": "GLOB"}
    parser.add_argument("--actors", **globs, help="actor layouts, by name")
    parser.add_argument("--rollouts", **globs, help="vLLM layouts, by name")
    parser.add_argument(
        "--time-limit", type=float, default=float("inf"), help="seconds; then stop, to go on later"
    )
    args = parser.parse_args()
    deadline = time.monotonic() + args.time_limit
    actors = [a for a in ACTOR_LAYOUTS if any(fnmatch(a.name, g) for g in args.actors)]
    rollouts = [r for r in ROLLOUT_LAYOUTS if any(fnmatch(r.name, g) for g in args.rollouts)]
    if not actors or not rollouts:
        parser.error(
            f"no layout matches; names look like {ACTOR_LAYOUTS[0].name} and "
            f"{ROLLOUT_LAYOUTS[0].name}"
        )

    transformers.utils.logging.disable_progress_bar()
    args.output.mkdir(parents=True, exist_ok=True)
    policies = make_policies(args.output, args.model)
    matrix = Matrix(args.output, policies, rollouts, deadline)
    cells, left = [], 0
    try:
        for lora in sorted({layout.lora for layout in actors}):
            for layout in rollouts:
                sampled = matrix.sample(layout, lora)
                outcome = f"cannot run: {sampled}" if isinstance(sampled, str) else "sampled"
                print(f"vLLM {layout.name}{', LoRA merged' * lora}: {outcome}", flush=True)
        needed, evidence = matrix.stand_ins_needed(), matrix.evidence()
    except OutOfTimeError:
        print("the time limit came before all rollouts; run again to go on")
        sys.exit(INCOMPLETE)
    for layout in actors:
        try:
            for cell in matrix.cells(layout):
                cells.append(cell)
                print(cell.line(), flush=True)
        except OutOfTimeError:
            left += len(rollouts)

    print(f"\n{by_factor(cells)}\n{refusals(cells)}")
    for name, reason in needed.items():
        print(f"stand-in: {name}\n      without it: {reason}")
    for name, value in evidence.items():
        print(f"{name}: {value}")
    save_json(args.output / "matrix.json", cells, {"stand_ins": needed, **evidence})
    plot(args.output / "matrix.png", cells)
    faulty = [cell for cell in cells if cell.faults]
    for cell in faulty:
        print(f"FAULT: {cell.line()}")
    if left:
        print(f"{left} cells are not measured yet; run again to go on")
    sys.exit(1 if faulty else INCOMPLETE if left else 0)


if __name__ == "__main__":
    main()
