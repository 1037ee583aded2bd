"""Made tasks as files for verl: `train.parquet` and `heldout.parquet`, each whole or not at all."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class MadeProblem(Protocol):
    """What a task's problem has."""

    @property
    def question(self) -> str:
        """What the user asks."""

    @property
    def answer(self) -> str:
        """The ground truth as text."""

    @property
    def split(self) -> str:
        """The one split that this problem belongs to."""


#: Of a split, so many problems by a seed.
Generate = Callable[[str, int, int], Sequence[MadeProblem]]


def verl_rows(problems: Sequence[MadeProblem], data_source: str) -> list[dict]:
    """Renders problems as rows of verl's RL dataset.

    ``extra_info.index`` is the row number: RSP derives its rollout seeds from it, so it must be
    unique within a file.
    """
    return [
        {
            "data_source": data_source,
            "prompt": [{"role": "user", "content": problem.question}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"split": problem.split, "index": index},
        }
        for index, problem in enumerate(problems)
    ]


def write_dataset(
    output: Path | str,
    generate: Generate,
    data_source: str,
    *,
    train_size: int = 4096,
    heldout_size: int = 200,
    seed: int = 0,
) -> dict[str, Path]:
    """Writes ``train.parquet`` and ``heldout.parquet``, each whole or not at all.

    The same arguments give the same rows, so writing again changes nothing.

    Args:
        output: The folder, made if missing.
        generate: The task's.
        data_source: What the rows name as theirs.
        train_size: Rows of ``train.parquet``.
        heldout_size: Rows of ``heldout.parquet``.
        seed: Which problems are drawn from each split, and their order.

    Returns:
        The path of each file by split name.

    Raises:
        ValueError: A size is not positive or exceeds its split.
        NotADirectoryError: The output path is a file.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"output {output} is a file: name a folder for the parquet files")
    rows = {
        split: verl_rows(generate(split, size, seed), data_source)
        for split, size in {"train": train_size, "heldout": heldout_size}.items()
    }
    output.mkdir(parents=True, exist_ok=True)
    paths = {}
    for split, split_rows in rows.items():
        path = output / f"{split}.parquet"
        partial = output / f".{split}.{os.getpid()}.tmp"
        try:
            _write_parquet(partial, split_rows)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        paths[split] = path
    return paths


def _write_parquet(file: Path, rows: list[dict]) -> None:
    import pyarrow as pa  # here: the benchmark of the same problems reads no file
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct([("split", pa.string()), ("index", pa.int64())])),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


@dataclass(frozen=True)
class Level:
    """A task as hard as one of its names says.

    Attributes:
        generate: Its problems.
        train_size: Rows of `train.parquet` by default.
        heldout_size: Rows of `heldout.parquet` by default.
    """

    generate: Generate
    train_size: int = 4096
    heldout_size: int = 200


def write_from_command_line(
    module: str,
    task: str,
    data_source: str,
    argv: Sequence[str] | None,
    levels: Mapping[str, Level],
) -> None:
    """Runs ``python -m MODULE``; bad input ends with one message and exit status 2.

    Args:
        module: As in the command.
        task: What it is, for the help.
        data_source: What the rows name as theirs.
        argv: The arguments; those of the process if None.
        levels: By name, the first by default; a task with one has no ``--level``.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=f"Write {task} as parquet files for verl."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the parquet files")
    add_level(parser, levels)
    sizes = {
        name: " or ".join(f"{getattr(level, name):,}" for level in levels.values())
        for name in ("train_size", "heldout_size")
    }
    parser.add_argument("--train-size", type=int, help=sizes["train_size"])
    parser.add_argument("--heldout-size", type=int, help=sizes["heldout_size"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    level = levels[args.level]
    train_size, heldout_size = args.train_size, args.heldout_size
    try:
        paths = write_dataset(
            args.output,
            level.generate,
            data_source,
            train_size=level.train_size if train_size is None else train_size,
            heldout_size=level.heldout_size if heldout_size is None else heldout_size,
            seed=args.seed,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for split, path in paths.items():
        print(f"{split}: {path}", file=sys.stderr)


def add_level(parser: argparse.ArgumentParser, levels: Mapping[str, object]) -> None:
    """Have a command take one of the levels, the first by default; one alone is no choice."""
    first, *others = levels
    parser.set_defaults(level=first)
    if others:
        parser.add_argument("--level", choices=levels, help=f"{first} by default")
