"""`rsp-rl`: the one console command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rsp_rl import __version__, report
from rsp_rl.analysis import cli as analyze
from rsp_rl.comparators import cli as comparators
from rsp_rl.evaluation import cli as evaluate
from rsp_rl.evaluation import compare
from rsp_rl.grading import cli as grade
from rsp_rl.inference import cli as generate
from rsp_rl.inference.requests import GenerationError
from rsp_rl.options import ConfigError
from rsp_rl.placement import PlacementError
from rsp_rl.reproduce import cli as reproduce
from rsp_rl.run_folder import RunFolderError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a known error ends with one line and exit status 1."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["train"]:
        return _train(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="rsp-rl", description="RL training of LLM reasoners with Random Soft Prompts."
    )
    parser.add_argument("--version", action="version", version=f"rsp-rl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("train", help="train: --config-name dapo_rsp [Hydra overrides]")
    report.add_parser(commands)
    evaluate.add_parser(commands)
    compare.add_parser(commands)
    generate.add_parser(commands)
    analyze.add_parser(commands)
    reproduce.add_parser(commands)
    comparators.add_parser(commands)
    grade.add_parser(commands)
    args = parser.parse_args(arguments)
    try:
        return args.func(args)
    except (ConfigError, PlacementError, RunFolderError, GenerationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _train(overrides: list[str]) -> int:
    # Hydra parses its own command line, overrides and --help included.
    from rsp_rl import train

    sys.argv = ["rsp-rl train", *overrides]
    train.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
