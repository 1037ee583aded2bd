"""`rsp-rl latent`: train models that think in hidden states, and evaluate them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.arguments import count, from_zero
from rsp_rl.commands import latent_ccot
from rsp_rl.console.screen import say
from rsp_rl.latent.methods import METHODS
from rsp_rl.latent.paper import TASKS
from rsp_rl.latent.settings import ENDS, OPTIMIZERS, PRESETS, RESETS, Settings

if TYPE_CHECKING:
    from rsp_rl.data.step_problems import StepProblem

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
    _add_eval(parts)
    _add_table(parts)
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
    dry = parser.add_argument_group("dry run", "Starts and writes nothing.")
    dry.add_argument(
        "--dry-run", action="store_true", help="only say what it would be, and whether it fits"
    )
    dry.add_argument("--processes", type=count, default=1, help="that would train (%(default)s)")
    dry.add_argument(
        "--memory-gb", type=count, help="of a process's device (default: none is held)"
    )
    group = parser.add_argument_group(
        "settings", "The preset gives them all, and those set here win."
    )
    for field in fields(Settings):
        group.add_argument(f"--{field.name.replace('_', '-')}", **_option(field))
    parser.set_defaults(func=train)


def _add_eval(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser(
        "eval", help="answer problems and count the right ones; again to go on"
    )
    parser.add_argument("path", metavar="RUN_OR_MODEL", help="a run's folder, or a model's")
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="problems; steps are optional"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="where to write (default: RUN/evaluation/NAME_OF_FILE, for a model "
        "runs/evaluation/MODEL/NAME_OF_FILE; with --thoughts or --limit a hash is added)",
    )
    parser.add_argument(
        "--thoughts", type=from_zero, help="before an answer (default: as it was trained)"
    )
    parser.add_argument(
        "--batch-size", type=count, default=64, help="problems at a time (%(default)s)"
    )
    parser.add_argument("--limit", type=count, help="only the first so many problems")
    parser.add_argument(
        "--engine", default="huggingface", choices=("huggingface", "vllm"), help="%(default)s"
    )
    parser.add_argument("--threads", type=count, help="of torch on a CPU (default: torch's)")
    parser.set_defaults(func=evaluate)


def _add_table(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("table", help="methods beside the paper's, seeds grouped")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run's folder, or one of its evaluations"
    )
    parser.add_argument("--task", choices=TASKS, help="whose column of the paper's table is shown")
    parser.add_argument("--output", type=Path, default=Path("analysis/latent_table"))
    parser.set_defaults(func=table)


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


def settings_of(args: argparse.Namespace) -> Settings:
    """The preset's settings with those that the command line sets."""
    set_ = {
        field.name: value
        for field in fields(Settings)
        if (value := getattr(args, field.name)) is not None
    }
    return replace(PRESETS[args.preset], **set_)


def train(args: argparse.Namespace) -> int:
    """Train a method on a file, and keep its best model."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from rsp_rl.data.step_problems import load_step_problems
    from rsp_rl.latent.training import train as run
    from rsp_rl.models.folder import resolve_model_folder
    from rsp_rl.models.weights import weights_digest

    settings = settings_of(args)
    disable_progress_bar()  # of loading and saving
    if args.threads:
        torch.set_num_threads(args.threads)
    problems = load_step_problems(args.train, "--train")[: args.limit]
    validation = load_step_problems(args.validation, "--validation")
    if args.dry_run:
        return _dry_run(args, settings, problems, validation)
    model = resolve_model_folder(args.model)
    described = {
        "model": args.model,
        "weights": weights_digest(model),
        "train": [*args.train],
        "validation": [*args.validation],
        "problems": len(problems),
    }
    folder = run(model, problems, validation, settings, args.output, described)
    say(f"model  {folder}")
    return 0


def _dry_run(
    args: argparse.Namespace,
    settings: Settings,
    problems: Sequence[StepProblem],
    validation: Sequence[StepProblem],
) -> int:
    from rsp_rl.latent.dry_run import model_lines, plan_lines
    from rsp_rl.models.folder import resolve_model_folder

    for line in plan_lines(settings, problems, validation, args.processes):
        print(line)
    # Last: without a way to the hub, all that needs no model has been said.
    model = resolve_model_folder(args.model)
    place = ", ".join(args.train)
    for line in model_lines(
        *(model, settings, problems),
        place=place,
        memory_gb=args.memory_gb,
        processes=args.processes,
    ):
        print(line)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Evaluate a model on a file; what is answered already is kept."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from rsp_rl.data.step_problems import load_step_problems
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.step_answers import Asked
    from rsp_rl.evaluation.thinkers import evaluate_thinker
    from rsp_rl.latent.run_folder import find_thinker

    disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    problems = load_step_problems(args.data, "--data", needs_steps=False)
    asked = Asked(
        *(args.data, problems[: args.limit], args.thoughts, args.limit),
        *(args.batch_size, args.engine),
    )
    trained = find_thinker(args.path)
    if trained.run is None:
        name = re.sub(r"[^\w.-]+", "_", args.path.strip("/."))
        root = Path("runs/evaluation") / name / asked.results
    else:
        root = trained.run / "evaluation" / asked.results
    folder = EvaluationFolder(args.output or root)
    found = evaluate_thinker(trained, asked, folder.root)
    print(
        f"accuracy {found['accuracy']:.4f} [{found['accuracy_low']:.4f}, "
        f"{found['accuracy_high']:.4f}], {found['tokens']:.1f} tokens and "
        f"{found['seconds_per_problem']:.3g} s a problem\n"
        f"summary  {folder.summary_json}\nreport   {folder.report}"
    )
    return 0


def table(args: argparse.Namespace) -> int:
    """Tabulate evaluations, a row a method."""
    from rsp_rl.analysis.latent_table import analyse

    analyse(args.runs, args.output, task=args.task)
    return 0
