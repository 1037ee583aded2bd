"""The parity matrix of laws: vLLM's thoughts against the actor's, law by law, in layouts of both.

vLLM thinks with each law that can be trained, with soft prompts in half of the rollouts, in each of
its layouts; verl's actor engine (FSDP2: padded and packed, ranks, gradient checkpointing, LoRA,
dynamic batch size) makes the same inputs from the records, scores them and takes the gradient of
-A log p, which is compared with that of one plain PyTorch process on a model in float64. What a
cell is and when it is right stands in `scripts/parity/laws.py`; soft and fuzzy tokens need tensor
parallelism 1.

    .venv/bin/python scripts/parity_of_laws.py                      # all of it
    .venv/bin/python scripts/parity_of_laws.py --time-limit 300     # a part; again for the next one

On a CPU, in fp32. What is measured is kept in `--output`. Exit status: 0 if all cells that ran are
right; 1 if not; 3 if the time limit came first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from fnmatch import fnmatch
from pathlib import Path

import transformers

from parity.actor import Sample
from parity.laws import (
    LAWS,
    LAYOUTS,
    LawCell,
    LawGap,
    by_factor,
    by_law,
    load_rollouts,
    measure_laws,
    reference_gradient,
    run_laws,
)
from parity.layouts import ROLLOUT_LAYOUTS, ActorLayout, RolloutLayout
from parity.matrix import last_error, run_apart
from parity.models import Policy, make_policies

INCOMPLETE = 3


def rollouts_of(folder: Path, layout: RolloutLayout, policy: Policy) -> dict[str, list[Sample]]:
    """By law; sampled if they are not there yet.

    Raises:
        RuntimeError: If vLLM cannot.
    """
    file = folder / f"{layout.name}-lora{policy.adapter is not None:d}.json"
    if not file.is_file():
        log = file.with_suffix(".log")
        reason = run_apart(run_laws, layout, policy, file, log=log)
        if not file.is_file():
            raise RuntimeError(reason or last_error(log.read_text(errors="replace")))
    return load_rollouts(file)


def measured(
    folder: Path,
    layout: ActorLayout,
    policy: Policy,
    sets: dict[str, dict[str, list[Sample]]],
    references: dict,
) -> dict:
    """What is known of a layout, which is measured with the one that shares its engine.

    Args:
        folder: Where it is kept.
        layout: The actor's.
        policy: Its.
        sets: Rollouts by vLLM's layout and law.
        references: Gradients of the first, by law; filled in when they are needed.
    """
    pair = [replace(layout, dynamic=dynamic) for dynamic in (False, True)]
    files = [folder / f"{each.name}.json" for each in pair]
    if not all(file.is_file() for file in files):
        trained = next(iter(sets.values()))
        if not references:
            references |= {law: reference_gradient(policy, rows) for law, rows in trained.items()}
        flat = {f"{name} {law}": rows for name, by in sets.items() for law, rows in by.items()}
        try:
            found = measure_laws(pair, policy, flat, trained, references)
            contents = [
                {"gaps": {name: asdict(gap) for name, gap in gaps.items()}, "gradients": errors}
                for gaps, errors in found
            ]
        except RuntimeError as error:
            contents = [{"refused": last_error(str(error))}] * 2
        for file, content in zip(files, contents, strict=True):
            file.write_text(json.dumps(content))
    return json.loads((folder / f"{layout.name}.json").read_text())


def cells_of(layout: ActorLayout, rollouts: list[RolloutLayout], content: dict) -> list[LawCell]:
    """One actor layout's cells."""
    cells = []
    for rollout in rollouts:
        for law in LAWS:
            cell, name = LawCell(law, rollout, layout), f"{rollout.name} {law}"
            if "refused" in content:
                cell = replace(cell, refused=f"verl: {content['refused']}")
            elif name not in content["gaps"]:
                cell = replace(cell, refused="a mixture of all tokens, with tensor parallelism")
            else:
                gap = LawGap(**content["gaps"][name])
                cell = replace(cell, gap=gap, gradient_error=content["gradients"][law])
            cells.append(cell)
    return cells


def main() -> None:
    """Measure what is missing; print, save and judge what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/parity_of_laws"), help="folder")
    parser.add_argument("--model", type=Path, help="Hugging Face folder; a random tiny one if none")
    globs = {"nargs": "+", "default": ["*"], "metavar": "GLOB"}
    parser.add_argument("--actors", **globs, help="actor layouts, by name")
    parser.add_argument("--rollouts", **globs, help="vLLM layouts, by name")
    parser.add_argument("--time-limit", type=float, default=float("inf"), help="seconds")
    args = parser.parse_args()
    deadline = time.monotonic() + args.time_limit
    actors = [a for a in LAYOUTS if any(fnmatch(a.name, g) for g in args.actors)]
    rollouts = [r for r in ROLLOUT_LAYOUTS if any(fnmatch(r.name, g) for g in args.rollouts)]
    if not actors or not rollouts:
        parser.error(
            f"no layout matches; names look like {LAYOUTS[0].name} and {ROLLOUT_LAYOUTS[0].name}"
        )

    transformers.utils.logging.disable_progress_bar()
    args.output.mkdir(parents=True, exist_ok=True)
    policies = make_policies(args.output, args.model)
    cells, left = [], 0
    for lora in sorted({layout.lora for layout in actors}):
        sets, references = {}, {}
        for layout in actors:
            if layout.lora != lora:
                continue
            if time.monotonic() > deadline:
                left += 1
                continue
            sets = sets or {r.name: rollouts_of(args.output, r, policies[lora]) for r in rollouts}
            content = measured(args.output, layout, policies[lora], sets, references)
            cells += (made := cells_of(layout, rollouts, content))
            print("\n".join(cell.line() for cell in made), flush=True)

    print(f"\n{by_law(cells)}\n\n{by_factor(cells)}")
    rows = [{**asdict(cell), "faults": cell.faults} for cell in cells]
    (args.output / "matrix.json").write_text(json.dumps(rows, indent=1))
    faulty = [cell for cell in cells if cell.faults]
    for cell in faulty:
        print(f"FAULT: {cell.line()}")
    if left:
        print(f"{left} actor layouts are not measured yet; run again to go on")
    sys.exit(1 if faulty else INCOMPLETE if left else 0)


if __name__ == "__main__":
    main()
