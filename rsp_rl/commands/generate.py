"""`rsp-rl generate`: answer a benchmark's problems with soft prompts, on vLLM or Hugging Face."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.commands.law_options import add_law_options, law_group
from rsp_rl.commands.law_options import spelled_out as spelled_out  # for the parser of all commands
from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.data.templates import TEMPLATES
from rsp_rl.dials.options import MODES
from rsp_rl.draws.laws import LAWS
from rsp_rl.inference.options import add_engine_options, engine_options
from rsp_rl.placement.prompt import POSITIONS

if TYPE_CHECKING:
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.protocol import Protocol

_DESCRIPTION = """\
Answer a benchmark's problems with random soft prompts, with thoughts of continuous tokens (--law),
or both, grade the answers and keep them. What was cut off is taken up again by the same command.
`rsp-rl eval` does the same by a protocol file, for every checkpoint of a run.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `generate` command."""
    parser = commands.add_parser(
        "generate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="Hugging Face folder or name on the hub")
    parser.add_argument(
        "--benchmark", required=True, choices=list(BENCHMARKS), metavar="NAME", action="append",
        help=f"one of {', '.join(BENCHMARKS)}; may be given several times",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="problems, a fixed subset (default: all)")
    parser.add_argument(
        "--template",
        default="chat",
        choices=list(TEMPLATES),
        help="how a question becomes a prompt",
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--samples", type=int, default=1, help="answers a problem")
    sampling.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    sampling.add_argument("--top-p", type=float, default=1.0)
    sampling.add_argument("--top-k", type=int, default=0, help="0 for the whole vocabulary")
    sampling.add_argument("--max-tokens", type=int, default=2048)
    sampling.add_argument("--seed", type=int, default=0)
    rsp = parser.add_argument_group("soft prompts")
    rsp.add_argument(
        "--rsp.length", dest="rsp_lengths", type=_lengths, metavar="L",
        help="0 for none; several, such as 10,15,20, to choose among on half of the problems and "
        "report on the other half (default: 20; 0 with --law, or if --rsp.law inserts nothing)",
    )  # fmt: skip
    rsp.add_argument("--rsp.position", dest="rsp_position", choices=POSITIONS, default="suffix")
    rsp.add_argument(
        "--rsp.mode", dest="rsp_mode", choices=MODES, default="independent",
        help="a draw for every sample, or one for all samples of a problem",
    )  # fmt: skip
    rsp.add_argument(
        "--rsp.scale", dest="rsp_scale", type=float, default=1.0,
        help="of sigma_E; alpha of question_noise",
    )  # fmt: skip
    rsp.add_argument(
        "--rsp.law", dest="rsp_law", choices=LAWS, default="gaussian", help="what is drawn"
    )
    rsp.add_argument("--rsp.seed", dest="rsp_seed", type=int, default=42)
    add_law_options(parser)
    add_engine_options(parser)
    parser.add_argument("--data-dir", type=Path, help="folder with the benchmarks' files")
    parser.add_argument("--output", type=Path, help="where to write (default: runs/generate/MODEL)")
    parser.set_defaults(func=run)


def _lengths(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no length, or list such as 10,15") from None


def run(args: argparse.Namespace) -> int:
    """Generate what `args` asks for, length by length.

    Returns:
        Exit status: 1 if a benchmark failed; the others are written all the same.
    """
    # Imported here: `rsp-rl generate --help` need not wait for torch and transformers.
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.outputs import outcome_line, write_outputs
    from rsp_rl.evaluation.runner import evaluate
    from rsp_rl.models.folder import resolve_model_folder

    engine = engine_options(args)
    if args.rsp_lengths is None:
        args.rsp_lengths = [20] if args.law is None and not LAWS[args.rsp_law].added else [0]
    # All of them first: a bad setting must not show after the first length's hours.
    protocols = {length: _protocol(args, length) for length in args.rsp_lengths}
    model = resolve_model_folder(args.model)
    name = re.sub(r"[^\w.-]+", "_", args.model.strip("/."))
    root = args.output or Path("runs/generate") / name
    folders: dict[int, EvaluationFolder] = {}
    failed = False
    for length, protocol in protocols.items():
        label = f"{args.law}-" if args.law else ""
        what = args.rsp_law if protocol.rsp.adds else f"{args.rsp_position}{length}"
        label += f"{args.kind}-{what}-{protocol.fingerprint()[:6]}"
        folder = folders[length] = EvaluationFolder(root / label)
        outcome = evaluate(model, protocol, folder.step(0), engine=engine, data_dir=args.data_dir)
        said = what if protocol.rsp.adds else f"L = {length}"
        print(f"{said}: {outcome_line(outcome)}", file=sys.stderr)
        write_outputs(folder)
        print(f"samples  {folder.step(0).root}\nreport   {folder.report}")
        for benchmark, why in outcome.failed.items():
            print(f"error: {benchmark}: {why}", file=sys.stderr)
        failed |= bool(outcome.failed)
    if len(folders) > 1 and not failed:
        _choose(args, folders, root)
    return int(failed)


def _protocol(args: argparse.Namespace, length: int) -> Protocol:
    from rsp_rl.evaluation.protocol import Protocol

    names = list(dict.fromkeys(args.benchmark))
    given = ("samples", "temperature", "top_p", "top_k", "limit")
    plan = {name: getattr(args, name) for name in given}
    rsp = {
        name: getattr(args, f"rsp_{name}") for name in ("position", "mode", "scale", "law", "seed")
    }
    return Protocol.from_dict(
        {
            "name": "generate",
            "template": args.template,
            "max_tokens": args.max_tokens,
            "seed": args.seed,
            "rsp": {**rsp, "length": length},
            "law": law_group(args),
            "benchmarks": {name: plan for name in names},
            "headline": names,
        }
    )


def _choose(args: argparse.Namespace, folders: Mapping[int, EvaluationFolder], root: Path) -> None:
    """Choose a length for each benchmark; on the terminal and in `lengths.json`."""
    from rsp_rl.basics.files import write_json
    from rsp_rl.evaluation.length_selection import choose_length
    from rsp_rl.evaluation.reading import read_finished_samples

    choices = {}
    for benchmark in dict.fromkeys(args.benchmark):
        choice = choices[benchmark] = choose_length(
            {n: read_finished_samples(folder.step(0), benchmark) for n, folder in folders.items()},
            args.seed,
        )
        print(
            f"{benchmark}: L = {choice['length']}, accuracy {choice['accuracy']:.4f} "
            f"[{choice['accuracy_low']:.4f}, {choice['accuracy_high']:.4f}] on the "
            f"{choice['problems']} problems that did not choose it"
        )
    write_json(root / "lengths.json", choices)
    print(f"lengths  {root / 'lengths.json'}")
