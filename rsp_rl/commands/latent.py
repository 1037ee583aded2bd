"""`rsp-rl latent`: train models that think in hidden states, and evaluate them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

from rsp_rl.basics.arguments import count
from rsp_rl.commands import latent_ccot
from rsp_rl.console.screen import say
from rsp_rl.latent.methods import METHODS
from rsp_rl.latent.settings import ENDS, OPTIMIZERS, PRESETS, RESETS, Settings

_DESCRIPTION = """\
Coconut, its baselines and its ablations (arXiv 2412.06769):

  python -m rsp_rl.data.prosqa --output DATA
  rsp-rl latent model --data DATA/train.jsonl --output BASE
  rsp-rl latent train --model BASE --train DATA/train.jsonl --validation DATA/validation.jsonl
      --method coconut --preset prosqa --output RUN
  rsp-rl latent eval RUN --data DATA/heldout.jsonl
"""

_CHOICES = {"method": METHODS, "reset_optimizer": RESETS, "optimizer": OPTIMIZERS, "ends": ENDS}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `latent` and what it does."""
    parser = commands.add_parser(
        "latent", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(metavar="WHAT", required=True)
    _add_model(parts)
    _add_train(parts)
    latent_ccot.add_parser(parts)


def _add_model(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("model", help="a small model from nothing")
    parser.add_argument("--data", required=True, help="problems whose words it is to know")
    parser.add_argument("--output", type=Path, required=True, help="folder that it is written to")
    parser.add_argument("--architecture", default="gpt2", choices=("gpt2", "llama", "qwen2"))
    parser.add_argument("--layers", type=count, default=4)
    parser.add_argument("--hidden-size", type=count, default=256)
    parser.add_argument("--heads", type=count, default=4)
    parser.add_argument("--context", type=count, default=1024, help="positions (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(func=make_model)


def _add_train(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("train", help="train one; again to go on")
    parser.add_argument("--model", required=True, help="Hugging Face folder or name on the hub")
    parser.add_argument("--train", required=True, nargs="+", help="problems with steps")
    parser.add_argument("--validation", required=True, nargs="+", help="problems with steps")
    parser.add_argument("--output", type=Path, required=True, help="the run's folder")
    parser.add_argument("--limit", type=count, help="problems to train on (default: all)")
    parser.add_argument("--threads", type=count, help="of torch on a CPU (default: torch's)")
    parser.add_argument(
        "--preset",
        default="prosqa",
        choices=list(PRESETS),
        help="the paper's settings (%(default)s)",
    )
    group = parser.add_argument_group(
        "settings", "The preset gives them all, and those set here win."
    )
    for field in fields(Settings):
        group.add_argument(f"--{field.name.replace('_', '-')}", **_option(field))
    parser.set_defaults(func=train)


def _option(field: Field) -> dict[str, Any]:
    values = {name: getattr(preset, field.name) for name, preset in PRESETS.items()}
    distinct = {*values.values()}
    shown = [f"{name} {value}" for name, value in values.items()]
    help_ = str(*distinct) if len(distinct) == 1 else ", ".join(shown)
    if field.name in _CHOICES:
        return {"choices": list(_CHOICES[field.name]), "help": help_}
    if isinstance(field.default, bool):
        return {"action": argparse.BooleanOptionalAction, "help": help_}
    kind: Callable[[str], Any] = float if field.default is None else type(field.default)
    return {"type": kind, "metavar": kind.__name__.upper(), "help": help_}


def make_model(args: argparse.Namespace) -> int:
    """Write a model that has learnt nothing."""
    from rsp_rl.data.step_problems import load_step_problems
    from rsp_rl.latent.scratch import make_model as make

    problems = load_step_problems(args.data, "--data", needs_steps=False)
    sizes = ("architecture", "layers", "hidden_size", "heads", "context", "seed")
    make(args.output, problems, **{name: getattr(args, name) for name in sizes})
    say(f"model  {args.output}")
    return 0


def train(args: argparse.Namespace) -> int:
    """Train a method on a file, and keep its best model."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from rsp_rl.data.step_problems import load_step_problems
    from rsp_rl.latent.training import train as run
    from rsp_rl.models.folder import resolve_model_folder
    from rsp_rl.models.weights import weights_digest

    set_ = {
        field.name: value
        for field in fields(Settings)
        if (value := getattr(args, field.name)) is not None
    }
    settings = replace(PRESETS[args.preset], **set_)
    disable_progress_bar()  # of loading and saving
    if args.threads:
        torch.set_num_threads(args.threads)
    problems = load_step_problems(args.train, "--train")[: args.limit]
    validation = load_step_problems(args.validation, "--validation")
    model = resolve_model_folder(args.model)
    described = {
        "model": args.model,
        "weights": weights_digest(model),
        "train": [*args.train],
        "problems": len(problems),
    }
    folder = run(model, problems, validation, settings, args.output, described)
    say(f"model  {folder}")
    return 0
