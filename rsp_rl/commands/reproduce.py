"""`rsp-rl reproduce`: sections of the paper on any model, as one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.analysis.condition_protocols import add_comparator_option
from rsp_rl.analysis.embedders import DEFAULT, NGRAMS
from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import ConfigError
from rsp_rl.inference.options import add_engine_options, engine_options

if TYPE_CHECKING:
    from rsp_rl.reproduce.plan import Wanted

_DESCRIPTION = """\
Evaluate what sections of the paper need, analyse it, and write report.html and report.md: every
table and figure, the paper's numbers beside the run's. What is finished is kept: after a crash, or
once a failed part is mended, run the same command again.

  4.2  position and length of soft prompts       Tables 2, 6, 7; 1 with --comparator
  4.3  attention, distributions                  Figures 2, 3, 6, 7, Table 9, Theorem 1
  4.4  first token, diversity, pass@N, coverage  Tables 3, 4, 10, Figure 4
  4.5  training                                  Figure 5, Tables 5, 13; from runs given by --runs
  dials   length, scale and law, one at a time   beyond the paper
  format  templates that are not the model's     Table 2's format mismatch
  thoughts  continuous tokens beside ordinary    arXiv 2505.15778, 2508.03440; how thoughts end:
            ones                                 law.name=soft_thinking law.max_thoughts=64 ...
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `reproduce` command."""
    parser = commands.add_parser(
        "reproduce",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        help="as for `rsp-rl eval`, such as rsp.length=10 benchmarks=[math500]; without rsp.length "
        "the paper's L is taken, without benchmarks the paper's of each section",
    )
    parser.add_argument(
        "--section",
        required=True,
        metavar="S",
        help="4.2, 4.3, 4.4, 4.5, dials, format, thoughts; several: 4.3,4.4",
    )
    parser.add_argument(
        "--only", type=_names, default=(), metavar="ANALYSIS",
        help="these of the sections' analyses, such as first_token,pass_at_n",
    )  # fmt: skip
    parser.add_argument(
        "--model",
        required=True,
        help="Hugging Face folder or name on the hub; for 4.5 the one that training began with",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder; one a model")
    parser.add_argument("--protocol", default="rsp_inference", help="as for `rsp-rl eval`")
    parser.add_argument("--data-dir", type=Path, help="folder with the benchmarks' files")
    section = parser.add_argument_group("of a section")
    section.add_argument(
        "--lengths", type=_lengths, default=(10, 15, 20), help="4.2: L to choose among (10,15,20)"
    )
    add_comparator_option(
        section,
        "4.2: a row of Table 1 (ltpo: the paper's preset of each benchmark unless preset= is set)",
    )
    section.add_argument(
        "--samples", type=count, default=16, help="4.4: answers a problem for pass@N (%(default)s)"
    )
    section.add_argument(
        "--held-out-half", action="store_true",
        help="4.4: twice as many answers for pass@N: the first half chooses the problems, those "
        "that any condition then solves, and the second half is reported",
    )  # fmt: skip
    section.add_argument(
        "--trajectories", type=count, default=300,
        help="4.4: answers a problem for semantic diversity (%(default)s)",
    )  # fmt: skip
    section.add_argument(
        "--embedder", default=DEFAULT,
        help=f"4.4: a sentence-transformers model, or {NGRAMS} (default: {DEFAULT})",
    )  # fmt: skip
    section.add_argument(
        "--runs", nargs="+", default=(), metavar="NAME=DIR", help="4.5: as for `rsp-rl compare`"
    )
    section.add_argument(
        "--other-templates", type=_names, default=("raw", "abel"),
        help="format: the templates (raw,abel)",
    )  # fmt: skip
    section.add_argument(
        "--thought-samples", type=count, default=4,
        help="thoughts: answers a problem, of sampled ones (%(default)s)",
    )  # fmt: skip
    add_engine_options(parser)
    parser.set_defaults(func=run)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in text.split(",") if part))


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({count(part) for part in text.split(",")}))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of lengths such as 10,20") from None


def run(args: argparse.Namespace) -> int:
    """Reproduce what `args` asks for.

    Returns:
        Exit status: 1 if a part failed; the others are on the page all the same.
    """
    # Imported here: `rsp-rl reproduce --help` need not wait for transformers.
    from rsp_rl.basics.files import locked
    from rsp_rl.models.folder import resolve_model_folder
    from rsp_rl.reproduce.page import write_page
    from rsp_rl.reproduce.plan import evaluations, make_plan
    from rsp_rl.reproduce.steps import Layout, carry_out, check_same_model

    wanted = wanted_by(args)
    plan = make_plan(dict.fromkeys(args.section.split(",")), wanted, args.only)
    engine = engine_options(args)
    layout = Layout(args.output)
    with locked(layout.root):
        model = None
        if evaluations(plan):
            model = resolve_model_folder(args.model)
            check_same_model(layout, model)
        failures = carry_out(plan, model, layout, engine, args.data_dir)
        page = write_page(plan, wanted, layout, failures)
    print(f"report  {page}")
    for name, why in failures.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    return 1 if failures else 0


def wanted_by(args: argparse.Namespace) -> Wanted:
    """What a command line asks for.

    Raises:
        ConfigError: On a bad value.
    """
    from rsp_rl.evaluation.protocol import load_protocol
    from rsp_rl.reproduce.plan import Wanted

    if not Path(args.model).name:
        raise ConfigError("--model is empty; give a Hugging Face folder, or a name on the hub")
    return Wanted(
        model=Path(args.model).name,
        protocol=load_protocol(args.protocol, args.overrides),
        own_benchmarks=any(text.startswith("benchmarks=") for text in args.overrides),
        lengths=args.lengths,
        samples=args.samples,
        held_out_half=args.held_out_half,
        trajectories=args.trajectories,
        embedder=args.embedder,
        thought_samples=args.thought_samples,
        comparators=tuple(map(tuple, args.comparator)),
        runs=tuple(args.runs),
        other_templates=args.other_templates,
    )
