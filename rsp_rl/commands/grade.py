"""``rsp-rl grade FILE.jsonl``: grade a file of outputs, write the verdicts, print a summary."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from rsp_rl.grading import pool
from rsp_rl.grading.batch import grade_many
from rsp_rl.grading.gold import gold_text
from rsp_rl.grading.verdict import STAGES, STEPS

_CHUNK = 512  # answers graded between two writes


def add_parser(subparsers: Any) -> None:
    """Register the ``grade`` command.

    Args:
        subparsers: What `argparse.ArgumentParser.add_subparsers` returned.
    """
    parser = subparsers.add_parser(
        "grade",
        description="Grade a jsonl file of model outputs and write one verdict a line. A run that "
        "was cut off is taken up where it stopped.",
    )
    parser.add_argument("file", type=Path, help="jsonl file, one object a line")
    parser.add_argument("--output-field", default="output", help="field of the model's output")
    parser.add_argument("--gold-field", default="gold", help="field of the gold answer")
    parser.add_argument(
        "--benchmark-field", default="benchmark", help="field of the benchmark's name, if any"
    )
    parser.add_argument(
        "--verdicts", type=Path, help="where to write (default: FILE.verdicts.jsonl)"
    )
    parser.add_argument("--processes", type=int, help="worker processes (default: all cores)")
    parser.add_argument("--restart", action="store_true", help="discard verdicts already written")
    parser.add_argument(
        "--show", type=int, default=10, help="disagreements between stages to print (default: 10)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Grade ``args.file``; see `add_parser` for the arguments.

    Returns:
        Exit status: 0, or 2 if the file or one of its fields is missing.
    """
    target = args.verdicts or args.file.with_suffix(".verdicts.jsonl")
    try:
        items = _read(args.file, args.output_field, args.gold_field, args.benchmark_field)
    except (OSError, ValueError, KeyError) as error:
        print(f"rsp-rl grade: {error}")
        return 2
    if args.restart:
        target.unlink(missing_ok=True)
    done = _count_complete_lines(target)
    with target.open("a", encoding="utf-8") as verdicts:
        graded = grade_many(items[done:], args.processes, progress=not args.quiet)
        for index, verdict in enumerate(graded, done):
            row = {
                "index": index,
                "correct": verdict.correct,
                "stage": verdict.stage,
                "extraction_step": verdict.extraction_step,
                "extracted": verdict.extracted,
                "gold": items[index][1],
                "timed_out": verdict.timed_out,
                "crashed": verdict.crashed,
                "unparsable": verdict.unparsable,
            }
            verdicts.write(json.dumps(row) + "\n")
            if index % _CHUNK == 0:
                verdicts.flush()
    pool.shared().close()
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    print(summary(rows, args.show))
    print(f"verdicts: {target}")
    return 0


def summary(rows: list[dict[str, Any]], show: int) -> str:
    """Accuracy, steps of the chain, stages, counters, and where a later stage saw more.

    The stages disagree where one compared two answers, found them unequal, and the next found
    them equal all the same: these are the verdicts worth a look.

    Args:
        rows: Verdicts as `run` writes them.
        show: Disagreements to list for each stage.
    """
    if not rows:
        return "no answers"
    correct = sum(row["correct"] for row in rows)
    lines = [f"accuracy {correct / len(rows):.4f} ({correct}/{len(rows)})"]
    steps = Counter(row["extraction_step"] for row in rows)
    right = Counter(row["extraction_step"] for row in rows if row["correct"])
    lines += [f"  {step:<16} {steps[step]:>6} answers, {right[step]} correct" for step in STEPS]
    counts = {
        name: sum(row[name] for row in rows) for name in ("timed_out", "crashed", "unparsable")
    }
    lines.append("  ".join(f"{name} {count}" for name, count in counts.items()))
    for before, stage in pairwise(STAGES[:3]):
        found = [row for row in rows if row["correct"] and row["stage"] == stage]
        lines.append(f"{stage} says equal where {before} does not: {len(found)}")
        lines += [f"  {row['extracted']!r}  against  {row['gold']!r}" for row in found[:show]]
    return "\n".join(lines)


def _read(
    path: Path, output_field: str, gold_field: str, benchmark_field: str
) -> list[tuple[str, str, str | None]]:
    items = []
    # Bytes: JSON strings may hold Unicode's line breaks.
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place} is damaged: {error}") from error
        for field in (output_field, gold_field):
            if not isinstance(row, dict) or field not in row:
                raise KeyError(f"{place}: no field {field!r}")
        if not isinstance(row[output_field], str):
            raise ValueError(f"{place}: {output_field!r} is {row[output_field]!r:.40}, not text")
        try:
            gold = gold_text(row[gold_field])
        except ValueError as error:
            raise ValueError(f"{place}: {gold_field!r} is {error}") from error
        items.append((row[output_field], gold, row.get(benchmark_field)))
    return items


def _count_complete_lines(path: Path) -> int:
    """Verdicts already written; a last line that was cut off is removed."""
    if not path.exists():
        return 0
    text = path.read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    if complete != text:
        path.write_text(complete, encoding="utf-8")
    return complete.count("\n")
