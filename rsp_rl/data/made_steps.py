"""Made tasks with steps as files: `train.jsonl`, `validation.jsonl`, `heldout.jsonl`."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.data.made import add_level
from rsp_rl.data.step_problems import StepProblem, write_step_problems

SPLITS = ("train", "validation", "heldout")

#: Of a split, so many problems by a seed.
Generate = Callable[[str, int, int], Sequence[StepProblem]]

#: Draws in a row that give nothing new, after which there is taken to be nothing new.
_IN_VAIN = 10_000


def draw_distinct(
    draw: Callable[[random.Random], StepProblem], split: str, size: int, seed: int
) -> list[StepProblem]:
    """Problems with different questions, in a random but repeatable order.

    A larger ``size`` with the same seed only appends. Each split draws from its own stream of
    random numbers: that two splits share a question is as unlikely as that one repeats itself.

    Args:
        draw: Makes one.
        split: One of ``SPLITS``.
        size: How many, at least 1.
        seed: Any integer; another gives other problems.

    Raises:
        ConfigError: The split is unknown, or the size not positive, or more than there are.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if size < 1:
        raise ConfigError(f"size of split {split!r} is {size}: ask for at least 1 problem")
    rng = random.Random(f"{split}:{seed}")
    problems: dict[str, StepProblem] = {}
    in_vain = 0
    while len(problems) < size:
        problem = draw(rng)
        in_vain = in_vain + 1 if problem.question in problems else 0
        problems.setdefault(problem.question, problem)
        if in_vain == _IN_VAIN:
            raise ConfigError(
                f"size of split {split!r} is {size}: there are no more than {len(problems)} or so "
                "different problems; ask for fewer"
            )
    return list(problems.values())


def write_step_files(
    output: Path, generate: Generate, sizes: Mapping[str, int], seed: int = 0
) -> dict[str, Path]:
    """Write a file a split, each whole or not at all; the same arguments give the same bytes.

    Args:
        output: The folder, made if missing.
        generate: The task's.
        sizes: Problems of each split.
        seed: Which problems are drawn from each split, and their order.

    Returns:
        The path of each file by split name.

    Raises:
        ConfigError: The output path is a file, or a size is none that its split has.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output {output} is a file: name a folder for the files")
    problems = {split: generate(split, size, seed) for split, size in sizes.items()}
    paths = {}
    for split, drawn in problems.items():
        paths[split] = output / f"{split}.jsonl"
        write_step_problems(paths[split], drawn)
    return paths


def write_from_command_line(
    module: str,
    task: str,
    sizes: Mapping[str, int],
    argv: Sequence[str] | None,
    levels: Mapping[str, Generate],
) -> dict[str, Path]:
    """Runs ``python -m MODULE``; bad input ends with one message and exit status 2.

    Args:
        module: As in the command.
        task: What it is, for the help.
        sizes: Problems of each split by default.
        argv: The arguments; those of the process if None.
        levels: The task by name, the first by default; one alone has no ``--level``.

    Returns:
        The path of each file by split name.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=f"Write {task} as files of questions and steps."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    add_level(parser, levels)
    for split, size in sizes.items():
        parser.add_argument(f"--{split}-size", type=int, default=size, help=f"{size:,}")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    asked = {split: getattr(args, f"{split}_size") for split in sizes}
    try:
        paths = write_step_files(args.output, levels[args.level], asked, args.seed)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for split, path in paths.items():
        print(f"{split}: {path}", file=sys.stderr)
    return paths
