"""`rsp-rl train-comparator`: train what TTSV and SoftCoT need before they are evaluated."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.presets import (
    AUTHORS,
    PAPER_ASSISTANT,
    PRESETS,
    departures,
    get_preset,
    spoken,
)
from rsp_rl.comparators.softcot import SoftCot, SoftCotTraining
from rsp_rl.comparators.training import TrainingSettings
from rsp_rl.comparators.ttsv import PREFIX, Ttsv, TtsvTraining
from rsp_rl.console.screen import bar, say
from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.data.templates import TEMPLATES, get_template
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.record import DTYPES
from rsp_rl.inference.soft_prompts import Comparator
from rsp_rl.placement.prompt import POSITIONS

if TYPE_CHECKING:
    from rsp_rl.inference.huggingface import HuggingFaceEngine
    from rsp_rl.inference.requests import Request

_DESCRIPTION = """\
Train the soft prompt of a comparator for one model. The folder is then named in an evaluation:

  rsp-rl eval MODEL comparator.method=ttsv comparator.trained=OUTPUT --engine huggingface

LTPO has nothing to train: comparator.method=ltpo, with comparator.preset=paper-gsm8k for the RSP
paper's settings instead of its authors'.
"""

_PRESETS = "A preset gives them all, and those set here win. Each with its presets' values:"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `train-comparator` and its methods."""
    parser = commands.add_parser(
        "train-comparator",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    methods = parser.add_subparsers(metavar="METHOD", required=True)
    ttsv = _add_method(
        methods, Ttsv, TtsvTraining, train_ttsv, help="a prefix, by the entropy of own answers"
    )
    ttsv.add_argument("--benchmark", required=True, choices=list(BENCHMARKS), metavar="NAME")
    ttsv.add_argument("--data-dir", type=Path, help="folder with the benchmarks' files")
    softcot = _add_method(
        methods, SoftCot, SoftCotTraining, train_softcot, help="a projection, by solutions"
    )
    softcot.add_argument(
        "--assistant",
        help=f"the small model: folder or hub name (the paper's presets: {PAPER_ASSISTANT})",
    )
    softcot.add_argument(
        "--solutions", required=True, type=Path,
        help="JSON lines with question and answer, such as GSM8K's training file",
    )  # fmt: skip


def _add_method(
    methods: argparse._SubParsersAction,
    kind: type[Comparator],
    settings: type[TrainingSettings],
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,
) -> argparse.ArgumentParser:
    parser = methods.add_parser(kind.method, help=help)
    parser.add_argument("--model", required=True, help="Hugging Face folder or name on the hub")
    parser.add_argument("--output", type=Path, required=True, help="folder that it is written to")
    parser.add_argument(
        "--template", default="chat", choices=list(TEMPLATES), help="of prompts (%(default)s)"
    )
    parser.add_argument(
        "--position", default=kind.position, choices=POSITIONS, help="of the vectors (%(default)s)"
    )
    parser.add_argument("--limit", type=count, help="problems (default: all)")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", *DTYPES),
        help="auto is bfloat16 on a GPU, float32 without one",
    )  # fmt: skip
    parser.add_argument(
        "--preset", default=AUTHORS, choices=list(PRESETS[kind.method]),
        help="whose hyper-parameters: the method's authors', or the RSP paper's (%(default)s)",
    )  # fmt: skip
    group = parser.add_argument_group("hyper-parameters", _PRESETS)
    for field in fields(settings):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            metavar=type(field.default).__name__.upper(),
            help=_by_preset(kind, field),
        )
    parser.set_defaults(func=run)
    return parser


def _by_preset(kind: type[Comparator], field: Field) -> str:
    """A hyper-parameter's values: one where all presets have the same."""
    values = {name: p.values()[field.name] for name, p in PRESETS[kind.method].items()}
    if len(set(values.values())) == 1:
        return f"{values[AUTHORS]:g}"
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _settings(kind: type[Comparator], args: argparse.Namespace) -> Any:
    """The preset's, and what the command line sets; says both."""
    preset = get_preset(kind.method, args.preset)
    names = asdict(preset.settings)
    set_ = {name: own for name in names if (own := getattr(args, name)) is not None}
    if preset.values().get("evaluation_length") == preset.settings.length and "length" in set_:
        set_.setdefault("evaluation_length", set_["length"])  # one L stays one
    settings = replace(preset.settings, **set_)
    say(f"{kind.method}: {spoken(args.preset, _departed(kind, args, settings))}")
    return settings


def _departed(
    kind: type[Comparator], args: argparse.Namespace, settings: TrainingSettings
) -> dict[str, tuple[Any, Any]]:
    """What the command line set otherwise than the preset has it."""
    named = getattr(args, "assistant", None)
    given = asdict(settings) | ({} if named is None else {"assistant": named})
    return departures(get_preset(kind.method, args.preset), given)


def _start(args: argparse.Namespace) -> HuggingFaceEngine:
    from rsp_rl.inference.huggingface import HuggingFaceEngine
    from rsp_rl.inference.requests import EngineOptions
    from rsp_rl.models.folder import check_model, resolve_model_folder

    folder = resolve_model_folder(args.model)
    check_model(folder)
    return HuggingFaceEngine(folder, EngineOptions(kind="huggingface", dtype=args.dtype))


def _context(engine: HuggingFaceEngine) -> int | None:
    return getattr(engine.host.network.config, "max_position_embeddings", None)


def train_ttsv(args: argparse.Namespace) -> int:
    """Train a prefix on a benchmark's questions."""
    # Imported here: `rsp-rl train-comparator --help` need not wait for transformers.
    from rsp_rl.comparators.ttsv import train
    from rsp_rl.data.benchmarks import load_benchmark
    from rsp_rl.evaluation.protocol import BenchmarkPlan, Protocol, choose_problems
    from rsp_rl.evaluation.questions import questions

    settings = _settings(Ttsv, args)
    # An epoch's sample is what an evaluation's nth is: a seed of its own, the same prompt.
    plan = BenchmarkPlan(
        args.benchmark,
        samples=settings.epochs,
        temperature=settings.temperature,
        top_p=settings.top_p,
        limit=args.limit,
    )
    protocol = Protocol(
        name=Ttsv.method,
        template=args.template,
        benchmarks=(plan,),
        max_tokens=settings.max_tokens,
        headline=(args.benchmark,),
        seed=settings.seed,
        rsp=_positions(settings.length, args),
    )
    problems = load_benchmark(args.benchmark, args.data_dir)
    problems = choose_problems(plan, problems, protocol.seed)
    engine = _start(args)
    epochs: list[list[Request]] = [[] for _ in range(settings.epochs)]
    for question in questions(
        *(plan, problems, protocol, engine.host.tokenizer),
        dtype="float32",
        context=_context(engine),
        model=engine.host.folder,
    ):
        epochs[question.sample].append(question.request)
    with _Progress(settings.epochs * -(-len(problems) // settings.step_size)) as progress:
        prefix_LD, course = train(engine, epochs, settings, on_step=progress.add)
    data = {"benchmark": args.benchmark, "problems": len(problems)}
    length, tensors = settings.length, {PREFIX: prefix_LD}
    return _save(Ttsv, args, engine, tensors, length, settings, data, course, "entropy")


def train_softcot(args: argparse.Namespace) -> int:
    """Train a projection on solved problems."""
    from rsp_rl.comparators.softcot import Assistant, resolve_assistant, train
    from rsp_rl.comparators.solutions import read_solutions
    from rsp_rl.models.weights import weights_digest

    settings = _settings(SoftCot, args)
    solutions = read_solutions(args.solutions)[: args.limit]
    named = args.assistant or get_preset(SoftCot.method, args.preset).assistant
    if named is None:
        raise ConfigError(
            f"--assistant is missing: preset {args.preset} has none; name the small model"
        )
    assistant = resolve_assistant(named)
    engine = _start(args)
    solved = _solved(engine, solutions, settings, args)
    thinker = Assistant(assistant, engine.host)
    with _Progress(settings.epochs * -(-len(solved) // settings.step_size)) as progress:
        tensors, course = train(engine.host, thinker, solved, settings, on_step=progress.add)
    data = {
        "solutions": args.solutions.name,
        "problems": len(solved),
        "assistant": str(assistant.resolve()),
        "assistant_weights": weights_digest(assistant),
    }
    length = settings.evaluation_length
    return _save(SoftCot, args, engine, tensors, length, settings, data, course, "nll")


def _positions(length: int, args: argparse.Namespace) -> RspOptions:
    """Where the vectors go; the law is of no matter, nothing is drawn from it."""
    return RspOptions(length=length, position=args.position, mean=0.0, std=0.0)


def _solved(
    engine: HuggingFaceEngine,
    solutions: Sequence[Any],
    settings: SoftCotTraining,
    args: argparse.Namespace,
) -> list[tuple[Request, list[int]]]:
    """Prompts with the tokens of their solutions, which end as the model's own answers do.

    Raises:
        ConfigError: If one of them is longer than the model's context.
    """
    from rsp_rl.inference.prompts import Sampling, Seeds, sample_requests

    template, tokenizer = get_template(args.template), engine.host.tokenizer
    end = template.end_of_turn(tokenizer)
    end = tokenizer.eos_token_id if end is None else end
    sampling = Sampling(0.0, 1.0, 0, 1, (), ())
    rsp, context = _positions(settings.length, args), _context(engine)
    solved = []
    for number, problem in enumerate(solutions, start=1):
        placed = template.place(tokenizer, problem.question, rsp.length, rsp.position)
        answer_ids = [*tokenizer.encode(problem.solution, add_special_tokens=False), end]
        if context is not None and len(placed.token_ids) + len(answer_ids) > context:
            raise ConfigError(
                f"{args.solutions}, line {number}: prompt and solution are longer than the model's "
                f"context of {context} tokens; leave the line out"
            )
        (request,) = sample_requests(placed, tokenizer, rsp, sampling, [Seeds(0, 0)], "float32")
        solved.append((replace(request, question=problem.question), answer_ids))
    return solved


def _save(
    kind: type[Comparator],
    args: argparse.Namespace,
    engine: HuggingFaceEngine,
    tensors: Mapping[str, torch.Tensor],
    length: int,
    settings: TrainingSettings,
    data: Mapping[str, Any],
    course: Sequence[float],
    objective: str,
) -> int:
    from rsp_rl.comparators.trained_file import save_trained
    from rsp_rl.evaluation.provenance import provenance
    from rsp_rl.models.weights import weights_digest

    folder = engine.host.folder
    how = {
        "method": kind.method,
        "preset": args.preset,
        "instead_of_preset": {
            name: own for name, (own, _) in _departed(kind, args, settings).items()
        },
        "length": length,  # in evaluations
        "position": args.position,
        "template": args.template,
        "model": str(folder.resolve()),
        "weights": weights_digest(folder),
        "dtype": str(engine.host.network.dtype).removeprefix("torch."),
        **data,
        "settings": asdict(settings),
        objective: list(course),
        "made_with": provenance(),
    }
    file = save_trained(args.output, tensors, how)
    print(f"{objective} by epoch, in nats a token: {', '.join(f'{loss:.4f}' for loss in course)}")
    print(f"trained  {file}")
    return 0


class _Progress:
    """A bar with the last mini-batch's loss."""

    def __init__(self, steps: int) -> None:
        self._bar = bar(total=steps, unit="step")

    def add(self, loss: float) -> None:
        self._bar.set_postfix_str(f"{loss:.4f} nats a token", refresh=False)
        self._bar.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
