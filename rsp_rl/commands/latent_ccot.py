"""`rsp-rl latent ccot`: train a model to think in few hidden states, and evaluate it."""

from __future__ import annotations

import argparse
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError
from rsp_rl.console.screen import say
from rsp_rl.latent.ccot.engines import ENGINES, HUGGINGFACE, check_engine
from rsp_rl.latent.ccot.settings import EVEN, SELECTIONS, CcotSettings, times

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from rsp_rl.data.step_problems import StepProblem

_DESCRIPTION = """\
Compressed Chain of Thought (arXiv 2412.13171): LoRA adapters that think and answer, on a model that
has learnt to reason in words.

  rsp-rl latent ccot train --model MODEL --train DATA/train.jsonl --ratio 0.1 --output RUN
  rsp-rl latent ccot eval RUN --data DATA/heldout.jsonl
"""

#: Characters of a token where the model's tokenizer is not at hand: fewer than of English text.
_CHARACTERS = 3

DTYPES = ("float32", "bfloat16")


def add_parser(parts: argparse._SubParsersAction) -> None:
    """Register `ccot` among what `rsp-rl latent` does."""
    parser = parts.add_parser(
        "ccot",
        help="Compressed Chain of Thought: train and eval",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    methods = parser.add_subparsers(metavar="WHAT", required=True)
    _add_train(methods)
    _add_eval(methods)


def _add_train(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser("train", help="train one; again to go on")
    parser.add_argument("--model", required=True, help="Hugging Face folder or name on the hub")
    parser.add_argument("--train", required=True, nargs="+", help="problems with steps")
    parser.add_argument("--output", type=Path, required=True, help="the run's folder")
    parser.add_argument("--limit", type=count, help="problems to train on (default: all)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the model's weights")
    parser.add_argument("--threads", type=count, help="of torch on a CPU (default: torch's)")
    parser.add_argument(
        "--dry-run", action="store_true", help="settings, data and memory; no weights are needed"
    )
    parser.add_argument(
        "--gpu-memory-gb", type=float, default=80.0, help="of the dry run (%(default)g)"
    )
    group = parser.add_argument_group("settings", "rsp_rl.latent.ccot.settings says what each is.")
    for field in fields(CcotSettings):
        group.add_argument(f"--{field.name.replace('_', '-')}", **_option(field))
    parser.set_defaults(func=train)


def _option(field: Field) -> dict[str, Any]:
    if field.name == "selection":
        return {"default": EVEN, "choices": SELECTIONS, "help": "%(default)s"}
    if field.name == "layer":
        return {"type": int, "metavar": "INT", "help": "half of the model's"}
    kind = type(field.default)
    return {
        "type": kind,
        "default": field.default,
        "metavar": kind.__name__.upper(),
        "help": "%(default)s",
    }


def _add_eval(parts: argparse._SubParsersAction) -> None:
    parser = parts.add_parser(
        "eval", help="answer problems and count the right ones; again to go on"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--data", required=True, metavar="FILE", help="problems")
    parser.add_argument(
        "--output", type=Path, help="where to write (default: RUN/evaluation/NAME_OF_FILE)"
    )
    parser.add_argument("--model", help="where it is now (default: where it was in training)")
    parser.add_argument("--limit", type=count, help="problems (default: all)")
    parser.add_argument(
        "--batch-size", type=count, default=32, help="problems at a time (%(default)s)"
    )
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="of the model's weights")
    parser.add_argument("--threads", type=count, help="of torch on a CPU (default: torch's)")
    parser.add_argument(
        "--engine", default=HUGGINGFACE, choices=ENGINES, help="%(default)s; vLLM says why not"
    )
    parser.set_defaults(func=evaluate)


def _settings(args: argparse.Namespace) -> CcotSettings:
    return CcotSettings(**{field.name: getattr(args, field.name) for field in fields(CcotSettings)})


def train(args: argparse.Namespace) -> int:
    """Train the adapters on a file's chains."""
    from rsp_rl.data.step_problems import load_step_problems

    settings = _settings(args)
    problems = load_step_problems(args.train, "--train")[: args.limit]
    if args.dry_run:
        return _dry_run(args, settings, problems)
    from rsp_rl.latent.ccot.run import train as run
    from rsp_rl.models.folder import resolve_model_folder
    from rsp_rl.models.weights import weights_digest

    dtype, device = _prepare(args)
    model = resolve_model_folder(args.model)
    described = {
        "model": str(model.resolve()),
        "weights": weights_digest(model),
        "train": [*args.train],
        "problems": len(problems),
        "dtype": args.dtype,
    }
    folder = run(model, problems, settings, args.output, described, dtype=dtype, device=device)
    say(f"trained  {folder}")
    return 0


def _prepare(args: argparse.Namespace) -> tuple[torch.dtype, str]:
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading
    if args.threads:
        torch.set_num_threads(args.threads)
    return getattr(torch, args.dtype), "cuda" if torch.cuda.is_available() else "cpu"


def _dry_run(
    args: argparse.Namespace, settings: CcotSettings, problems: Sequence[StepProblem]
) -> int:
    from rsp_rl.latent.ccot.memory import GIB, Lengths, memory_of
    from rsp_rl.latent.ccot.phases import phases_of
    from rsp_rl.models.shape import model_shape

    shape = model_shape(args.model)
    lengths = Lengths(
        *(
            max(-(-len(text) // _CHARACTERS) for text in texts)
            for texts in (
                [problem.question for problem in problems],
                ["\n".join(problem.steps) for problem in problems],
                [problem.answer + "###" for problem in problems],
            )
        )
    )
    thoughts = times(settings.ratio, lengths.chain)
    longest_answer = settings.cap + settings.max_new_tokens
    needed = lengths.question + max(lengths.chain, thoughts + lengths.answer, longest_answer)
    if needed > shape.max_position_embeddings:
        raise ConfigError(
            f"the longest question, with its chain or the most thoughts and the longest answer, "
            f"needs about {needed} positions, and {args.model} has "
            f"{shape.max_position_embeddings}; leave long problems out, or set a lower "
            "longest_chain or max_new_tokens"
        )
    steps = -(-len(problems) // settings.batch_size)
    print(f"model    {args.model}, {shape.layers} layers, l = {settings.layer_of(shape.layers)}")
    longest = f"{lengths.question} + {lengths.chain} + {lengths.answer}"
    print(f"data     {len(problems):,} problems, the longest parts {longest} tokens, guessed")
    print(f"thoughts {thoughts} of the longest chain, at most {settings.cap} of an answer")
    for field in fields(settings):
        print(f"  {field.name}: {getattr(settings, field.name)}")
    phases = phases_of(settings, shape.layers)
    for name in dict.fromkeys(phase.name for phase in phases):
        epochs = sum(phase.epochs for phase in phases if phase.name == name)
        print(f"steps    {name}: {epochs * steps:,}")
    memory = memory_of(shape, settings, lengths)
    print("\n# memory of one GPU, GiB (estimated from shapes, not measured)")
    for name, size in vars(memory).items():
        print(f"  {name:<12} {size / GIB:6.1f}")
    print(f"  {'total':<12} {memory.total / GIB:6.1f} of {args.gpu_memory_gb:g}")
    if memory.total > args.gpu_memory_gb * GIB:
        raise ConfigError(
            f"about {memory.total / GIB:.0f} GiB do not fit into {args.gpu_memory_gb:g}; set a "
            "smaller batch_size"
        )
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Answer a file's problems, and write answers and summary."""
    check_engine(args.engine)
    from rsp_rl.data.step_problems import load_step_problems
    from rsp_rl.evaluation.ccot import evaluate_ccot
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.step_answers import Asked
    from rsp_rl.latent.ccot.saved import read
    from rsp_rl.latent.run_folder import MODEL
    from rsp_rl.models.folder import resolve_model_folder

    problems = load_step_problems(args.data, "--data", needs_steps=False)[: args.limit]
    asked = Asked(args.data, problems, limit=args.limit, batch_size=args.batch_size)
    trained = args.run / MODEL
    _, of = read(trained)
    model = resolve_model_folder(args.model or of["model"])
    folder = EvaluationFolder(args.output or args.run / "evaluation" / asked.results)
    found = evaluate_ccot(trained, model, asked, folder.root, *_prepare(args))
    print(
        f"accuracy {found['accuracy']:.4f} [{found['accuracy_low']:.4f}, "
        f"{found['accuracy_high']:.4f}], {found['thoughts']:.1f} thoughts, {found['tokens']:.1f} "
        f"tokens and {found['seconds_per_problem']:.3g} s a problem"
    )
    if found["thoughts_cut_off"]:
        print(f"{found['thoughts_cut_off']} of {found['problems']} had {found['cap']} thoughts, "
              "the most there are, without an end")  # fmt: skip
    print(f"summary  {folder.summary_json}\nreport   {folder.report}")
    return 0
