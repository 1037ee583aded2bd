r"""Make the training and validation sets of the real recipes (the recipes call this themselves).

    python -m rsp_rl.data.prepare --output runs/math35
    python -m rsp_rl.data.prepare --output runs/math35 --data-dir FOLDER   # no hub
    python -m rsp_rl.data.prepare --output runs/math35_llama --template llama-chat

`FOLDER` (or the environment variable RSP_RL_DATA_DIR) holds `math_train/train.json` and
`math500/test.jsonl`; without it SimpleRL-Zoo's MATH levels 3 to 5 and MATH-500 come from the hub.
Exact and near duplicates of MATH-500 are left out of the training set and counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.benchmarks import DATA_DIR_VARIABLE, load_benchmark
from rsp_rl.data.math_training import (
    chat_messages,
    evenly_spaced,
    load_training_problems,
    write_training_set,
)

HELD_OUT = "math500"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; a known error ends with one line and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m rsp_rl.data.prepare",
        description="Write train.parquet and validation.parquet for the recipes.",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--data-dir", type=Path, help=f"local files; default ${DATA_DIR_VARIABLE}")
    parser.add_argument("--template", default="qwen-boxed", help="default: qwen-boxed")
    parser.add_argument(
        "--validation-size", type=int, default=500, help="problems of MATH-500; default: all 500"
    )
    args = parser.parse_args(argv)
    data_dir = args.data_dir
    if data_dir is None and (variable := os.environ.get(DATA_DIR_VARIABLE)):
        data_dir = Path(variable)
    try:
        chat_messages(args.template, "")  # a bad template fails before anything is downloaded
        _say(f"reading MATH problems from {data_dir or 'the hub'}")
        problems = load_training_problems(data_dir)
        benchmark = load_benchmark(HELD_OUT, data_dir)
        validation = evenly_spaced(benchmark, args.validation_size)
        _say(f"comparing {len(problems)} problems with the {len(benchmark)} of {HELD_OUT}")
        held_out = [problem.question for problem in benchmark]
        counts = write_training_set(args.output, problems, validation, held_out, args.template)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for field in fields(counts):
        _say(f"{field.name.replace('_', ' ')}: {getattr(counts, field.name)}")
    _say(f"wrote {args.output}/train.parquet and validation.parquet ({len(validation)} problems)")
    return 0


def _say(text: str) -> None:
    print(f"prepare: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
