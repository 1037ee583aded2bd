"""`rsp-rl`: the one console command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from rsp_rl import __version__
from rsp_rl.basics import exit_status
from rsp_rl.basics.errors import KnownError

#: By command: its module, whose `add_parser` registers it, and its line in `rsp-rl --help`.
#: A module is imported when its command is called: torch and matplotlib take seconds to load.
COMMANDS = {
    "train": ("rsp_rl.commands.train", "train: --config-name dapo_rsp [Hydra overrides]"),
    "report": (
        "rsp_rl.commands.report",
        "summary, plot, page of rollouts and model card of a training run",
    ),
    "push": ("rsp_rl.commands.push", "a trained model with its card to the Hugging Face hub"),
    "eval": ("rsp_rl.commands.evaluate", "evaluate a model, or every checkpoint of a run"),
    "compare": (
        "rsp_rl.commands.compare",
        "several runs side by side: tables with paired intervals, and curves",
    ),
    "generate": ("rsp_rl.commands.generate", "answer a benchmark's problems with soft prompts"),
    "analyze": ("rsp_rl.commands.analyze", "tables and figures of RSP at inference"),
    "reproduce": (
        "rsp_rl.commands.reproduce",
        "sections of the paper on any model, beside the paper's numbers",
    ),
    "train-comparator": (
        "rsp_rl.commands.train_comparator",
        "train a soft prompt to compare random ones with",
    ),
    "latent": ("rsp_rl.commands.latent", "train models that think in hidden states: Coconut"),
    "model": ("rsp_rl.commands.model", "a small real model as a folder: smollm2-135m"),
    "recipe": ("rsp_rl.commands.recipe", "the recipes: --list, or NAME --copy DIR"),
    "grade": ("rsp_rl.commands.grade", "grade a jsonl file of model outputs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a known error ends with one line and exit status 1, Ctrl-C with 130."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="rsp-rl", description="RL training of LLM reasoners with Random Soft Prompts."
    )
    parser.add_argument("--version", action="version", version=f"rsp-rl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = arguments[0] if arguments else None
    if command not in COMMANDS:
        for name, (_, line) in COMMANDS.items():
            commands.add_parser(name, help=line)
        parser.parse_args(arguments)  # help, version, or an unknown command: ends here
        parser.error("the command comes first")
    module = import_module(COMMANDS[command][0])
    if command == "train":  # Hydra parses its own command line, --help included
        return _run(lambda: module.main(arguments[1:]))
    module.add_parser(commands)
    if hasattr(module, "spelled_out"):  # options that no parser can list
        arguments = module.spelled_out(arguments)
    args, rest = parser.parse_known_args(arguments)
    # A parser takes a command's overrides in one piece; those after its options are left over.
    if rest and hasattr(args, "overrides") and all(map(_is_override, rest)):
        args.overrides = [*args.overrides, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return _run(lambda: args.func(args))


def _is_override(argument: str) -> bool:
    return "=" in argument and not argument.startswith("-")


def _run(command: Callable[[], int]) -> int:
    try:
        return command()
    except KnownError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return exit_status.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
