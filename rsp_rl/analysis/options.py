"""Options of the analyses that run a model."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.record import DTYPES

if TYPE_CHECKING:
    from rsp_rl.analysis.conditions import Condition


@dataclass(frozen=True)
class ModelOptions:
    """Which model an analysis runs, and over which of its answers.

    Attributes:
        model: Hugging Face folder or name on the hub; the one that answered if None.
        dtype: What it computes in; what it answered in if None.
        benchmarks: All that are finished if None.
        problems: Only the first so many of each benchmark.
        samples: Only the first so many of each problem.
    """

    model: str | None = None
    dtype: str | None = None
    benchmarks: Sequence[str] | None = None
    problems: int | None = None
    samples: int | None = None


def add_analysis(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,
    description: str | None,
) -> argparse.ArgumentParser:
    """Register `analyze NAME`, described by its module's docstring."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(func=run)
    return parser


def add_model_options(parser: argparse.ArgumentParser, output: Path) -> None:
    """Which model, which of its answers, where to write."""
    parser.add_argument("--model", help="default: the one that answered, as how.json names it")
    parser.add_argument("--dtype", choices=DTYPES, help="default: the one that it answered in")
    parser.add_argument("--benchmark", action="append", help="default: all that are finished")
    parser.add_argument("--problems", type=count, help="only the first so many")
    parser.add_argument("--samples", type=count, help="only the first so many of each problem")
    parser.add_argument("--output", type=Path, default=output)


def model_options(args: argparse.Namespace) -> ModelOptions:
    """What `add_model_options` made of a command line."""
    return ModelOptions(args.model, args.dtype, args.benchmark, args.problems, args.samples)


def check_samples(
    wanted: int | None, conditions: Sequence[Condition], benchmarks: Sequence[str]
) -> None:
    """Make sure that every problem has as many answers, each with its seed and draw, as wanted.

    Raises:
        ConfigError: Naming the folder that has fewer.
    """
    for condition in conditions:
        for benchmark in benchmarks:
            there = condition.plan(benchmark).samples
            if wanted is not None and wanted > there:
                raise ConfigError(
                    f"--samples {wanted}: {condition.root} has {there} a problem of {benchmark}, "
                    "each with a seed of its own; evaluate with more samples"
                )


def chosen_benchmarks(wanted: Sequence[str] | None, finished: Sequence[str]) -> list[str]:
    """The benchmarks that an analysis is about: those wanted, or all.

    Raises:
        ConfigError: If one is not finished in all folders.
    """
    chosen = list(dict.fromkeys(wanted or finished))
    if missing := [name for name in chosen if name not in finished]:
        raise ConfigError(f"--benchmark {missing[0]}: finished are {', '.join(finished)}")
    return chosen
