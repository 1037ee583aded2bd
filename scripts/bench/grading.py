r"""Grading speed and accuracy on one core, beside Math-Verify alone and verl's math_dapo.

    python scripts/bench/grading.py                      # outputs made from the benchmarks' files
    python scripts/bench/grading.py --file graded.jsonl  # own outputs: output, gold, correct

All graders see the same items in the same run, pinned to one core. Without a file, the outputs are
the worked solutions of MATH-500, GSM8K, Minerva and OlympiadBench, each against its own gold
(right), against the next problem's gold (wrong unless that is the same), and with its answer
rewritten (``\dfrac``, spaces, a decimal, a reordered list).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

from paired import write_report

from rsp_rl.grading.extraction import from_box

DATA = Path(
    os.environ.get("RSP_RL_DATA_DIR", Path(__file__).resolve().parents[3] / "shared" / "data")
)
ROLLOUTS = 8192  # 1,024 prompts x 8, one step of the paper's training
Item = tuple[str, str, bool]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--file", type=Path, help="jsonl with output, gold and correct")
    parser.add_argument(
        "--items", type=int, default=2000, help="items for our grader and math_dapo"
    )
    parser.add_argument("--slow-items", type=int, default=400, help="items for Math-Verify")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("grading.json"))
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    items = from_file(args.file) if args.file else from_solutions()
    random.Random(args.seed).shuffle(items)
    items = items[: args.items]
    print(f"{len(items)} items, {sum(label for *_, label in items)} of them right; one core")
    print(f"{'grader':<14}{'items':>7}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}"
          f"{'agree':>9}{'false +':>9}{'false -':>9}")  # fmt: skip
    graders = [
        report("rsp_rl", our_grader(), items),
        report("math_dapo", math_dapo(), items),
        report("Math-Verify", math_verify(), items[: args.slow_items]),
    ]
    rates = {figures["grader"]: figures["per_second"] for figures in graders}
    ours, times = rates["rsp_rl"], rates["rsp_rl"] / rates["Math-Verify"]
    print(f"rsp_rl over Math-Verify: {times:.0f} times the throughput")
    print(f"{ROLLOUTS} rollouts: {ROLLOUTS / ours:.1f} s on this core, "
          f"{ROLLOUTS / ours / 8:.1f} s on 8 (extrapolated)")  # fmt: skip
    from rsp_rl.grading import pool

    print(f"counters: {pool.shared().counters}")
    write_report(args.output, "grading", {"graders": graders, "times_math_verify": times})


def report(
    name: str, grader: Callable[[str, str], bool], items: list[Item]
) -> dict[str, str | float]:
    """Time a grader on every item, print its line and return its figures."""
    times, false_accepts, false_rejects = [], 0, 0
    for output, gold, label in items:
        started = time.perf_counter()
        verdict = grader(output, gold)
        times.append(1000 * (time.perf_counter() - started))
        false_accepts += verdict and not label
        false_rejects += label and not verdict
    rate = 1000 * len(times) / sum(times)
    cuts = quantiles(times, n=100)
    agree = 1 - (false_accepts + false_rejects) / len(items)
    print(f"{name:<14}{len(items):>7}{rate:>9.0f}{cuts[49]:>9.2f}{cuts[98]:>9.2f}{max(times):>9.0f}"
          f"{agree:>9.2%}{false_accepts:>9}{false_rejects:>9}", flush=True)  # fmt: skip
    return {
        "grader": name,
        "items": len(times),
        "per_second": rate,
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
        "max_ms": max(times),
        "agree": agree,
        "false_accepts": false_accepts,
        "false_rejects": false_rejects,
    }


def our_grader() -> Callable[[str, str], bool]:
    from rsp_rl.grading import grade, is_correct

    is_correct(r"\sin 2x+1", r"1+\sin 2x")  # wait for the worker
    return lambda output, gold: bool(grade(output, gold))


def math_dapo() -> Callable[[str, str], bool]:
    from verl.utils.reward_score.math_dapo import compute_score

    return lambda output, gold: bool(compute_score(output, gold)["acc"])


def math_verify() -> Callable[[str, str], bool]:
    from math_verify import parse, verify

    parse("$1$")
    return lambda output, gold: bool(verify(parse(f"${gold}$"), parse(output)))


def from_file(path: Path) -> list[Item]:
    rows = map(json.loads, path.read_text().splitlines())
    return [(row["output"], row["gold"], bool(row["correct"])) for row in rows]


def from_solutions() -> list[Item]:
    """Worked solutions as outputs, with their own gold, the next one's, and a rewritten answer."""
    items: list[Item] = []
    for benchmark, read in READERS.items():
        rows = map(json.loads, (DATA / benchmark / "test.jsonl").read_text().splitlines())
        pairs = [(text, gold) for text, gold in map(read, rows) if gold and len(gold) < 200]
        for (text, gold), (_, other) in zip(pairs, pairs[1:] + pairs[:1], strict=True):
            items.append((f"{text}\nSo we get $\\boxed{{{gold}}}$.", gold, True))
            items.append((f"{text}\nSo we get $\\boxed{{{rewritten(gold)}}}$.", gold, True))
            if gold.split() != other.split():
                items.append((f"{text}\nSo we get $\\boxed{{{gold}}}$.", other, False))
    return items


def rewritten(gold: str) -> str:
    """The same answer in another notation."""
    fraction = re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", gold)
    if fraction:
        return f"{fraction[1]}{int(fraction[2]) / int(fraction[3]):.8f}"
    if re.fullmatch(r"-?\d+(, ?-?\d+)+", gold) and not re.fullmatch(r"\d{1,3}(,\d{3})+", gold):
        return ", ".join(reversed(gold.replace(" ", "").split(",")))
    if re.fullmatch(r"-?\d{4,}", gold):
        return f"{int(gold):,}"
    root = re.fullmatch(r"(\d+) ?\\sqrt\{(\d+)\}", gold)
    if root:
        return f"\\sqrt{{{int(root[1]) ** 2 * int(root[2])}}}"
    return gold.replace("\\frac", "\\dfrac").replace("(", "\\left( ").replace(")", "\\right)")


def boxed(text: str) -> str:
    """What the last box holds, ``""`` if there is none."""
    found = from_box(text)
    return found.text if found else ""


READERS: dict[str, Callable[[dict], tuple[str, str]]] = {
    "math500": lambda row: (row["solution"], row["answer"]),
    "gsm8k": lambda row: (row["answer"], row["answer"].rpartition("####")[2].strip()),
    "minerva_math": lambda row: (row["solution"], boxed(row["solution"])),
    "olympiadbench": lambda row: (row["solution"][0], row["final_answer"][0].strip("$")),
}

if __name__ == "__main__":
    main()
