"""The analyses' command lines: folders to read, and a model to run over their answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.analysis.conditions import Condition, shared_benchmarks
from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.record import DTYPES

if TYPE_CHECKING:
    from rsp_rl.analysis.teacher_forcing import ForcedModel

FOLDERS_HELP = (
    "[NAME=]DIR: folder that `rsp-rl generate`, `rsp-rl eval` or `rsp-rl analyze evaluate` wrote, "
    "or one step_N of it"
)


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

    def chosen(
        self, conditions: Sequence[Condition], *, may_differ: Collection[str] = ()
    ) -> list[str]:
        """The benchmarks to run over.

        Args:
            conditions: One at least.
            may_differ: See `shared_benchmarks`.

        Raises:
            ConfigError: If a benchmark is not finished in all conditions, or one has fewer answers
                a problem, each with its seed and draw, than are wanted.
            RunFolderError: If the conditions cannot be compared.
        """
        finished = shared_benchmarks(conditions, may_differ=may_differ)
        chosen = chosen_benchmarks(self.benchmarks, finished)
        _check_samples(self.samples, conditions, chosen)
        return chosen

    def load(
        self, condition: Condition, *, attention: str = "sdpa", thoughts: bool = False
    ) -> ForcedModel:
        """The model of a condition; as `ForcedModel` raises.

        Args:
            condition: Whose answers it is to read.
            attention: transformers' name of an attention implementation.
            thoughts: Whether it is asked for thoughts as they are recorded, and not for texts.
        """
        from rsp_rl.analysis.teacher_forcing import ForcedModel

        return ForcedModel(
            condition,
            model=self.model,
            dtype=self.dtype,
            attention=attention,
            thoughts=thoughts,
        )


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


def add_folders_analysis(
    commands: argparse._SubParsersAction,
    name: str,
    analyse: Callable[[Sequence[str], Path], None],
    *,
    help: str,
    description: str | None,
    output: Path,
) -> None:
    """Register `analyze NAME DIR ...`, which does what its function does, and has no more options.

    Args:
        commands: Sub-commands of `analyze`.
        name: Of the analysis.
        analyse: Takes the folders and where to write.
        help: Its line.
        description: Its module's docstring.
        output: Where to write by default.
    """

    def run(args: argparse.Namespace) -> int:
        analyse(args.folders, args.output)
        return 0

    parser = add_analysis(commands, name, run, help=help, description=description)
    add_folders(parser)
    parser.add_argument("--output", type=Path, default=output)


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Which evaluations, one or several."""
    parser.add_argument("folders", nargs="+", metavar="DIR", help=FOLDERS_HELP)


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


def _check_samples(
    wanted: int | None, conditions: Sequence[Condition], benchmarks: Sequence[str]
) -> None:
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
