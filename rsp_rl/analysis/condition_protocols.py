"""`rsp-rl analyze evaluate`: the evaluations that a figure needs, one folder a condition.

Each is the same protocol but for its soft prompts (and, where the figure says so, its sampling).
The conditions of trained-or-random are the baseline, RSP and each --comparator.

What is finished is kept, what was cut off is taken up again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rsp_rl.analysis.options import add_analysis
from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.methods import METHODS
from rsp_rl.comparators.presets import PRESETS
from rsp_rl.console.screen import say
from rsp_rl.dials.options import RspOptions
from rsp_rl.evaluation.protocol import Protocol, load_protocol
from rsp_rl.inference.options import add_engine_options, engine_options

_GREEDY = {"temperature": 0.0}
_SAMPLED = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}

#: Neither a soft prompt nor noise: a law that inserts nothing has the length 0 already.
_PLAIN = {"length": 0, "law": RspOptions.law}

#: By figure and name of the condition's folder: changes to `rsp`, changes to sampling.
FIGURES: dict[str, dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {
    "positions": {
        "baseline": (_PLAIN, {}),
        "prefix": ({"position": "prefix"}, {}),
        "infix": ({"position": "infix"}, {}),
        "suffix": ({"position": "suffix"}, {}),
    },
    "trained-or-random": {  # and the comparators
        "baseline": (_PLAIN, {}),
        "random": ({}, {}),
    },
    "pass-at-n": {
        "baseline_sampled": (_PLAIN, _SAMPLED),
        "shared_sampled": ({"mode": "shared"}, _SAMPLED),
        "independent_greedy": ({"mode": "independent"}, _GREEDY),
        "independent_sampled": ({"mode": "independent"}, _SAMPLED),
    },
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register `analyze evaluate`."""
    parser = add_analysis(
        commands,
        "evaluate",
        run,
        help="make the evaluations that a figure needs",
        description=__doc__,
    )
    parser.add_argument("figure", choices=list(FIGURES))
    parser.add_argument("overrides", nargs="*", help="as for `rsp-rl eval`, such as rsp.length=10")
    parser.add_argument("--model", required=True, help="Hugging Face folder or name on the hub")
    parser.add_argument("--protocol", default="rsp_paper", help="as for `rsp-rl eval`")
    parser.add_argument(
        "--samples", type=int, default=16, help="answers a problem for pass-at-n (%(default)s)"
    )
    add_comparator_option(parser, "a condition of trained-or-random")
    parser.add_argument("--output", type=Path, required=True, help="gets a folder a condition")
    parser.add_argument("--data-dir", type=Path, help="folder with the benchmarks' files")
    add_engine_options(parser)


def add_comparator_option(parser: argparse._ActionsContainer, what: str) -> None:
    """Add `--comparator`, a list of a method with its settings each time.

    Args:
        parser: A parser, or a group of its options.
        what: What one is, for the help.
    """
    parser.add_argument(
        "--comparator",
        nargs="+",
        action="append",
        default=[],
        metavar=("METHOD", "KEY=VALUE"),
        help=f"{what}: one of {', '.join(METHODS)} and its settings, such as `ltpo "
        "preset=paper-math500`, `ltpo sigma=4 rsp.length=8` or `ttsv trained=DIR`; may be given "
        f"several times. Presets of LTPO: {', '.join(PRESETS['ltpo'])}",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate every condition.

    Returns:
        Exit status: 1 if a benchmark failed; the others are written all the same.
    """
    # Imported here: `rsp-rl analyze --help` need not wait for transformers.
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.outputs import outcome_line, write_outputs
    from rsp_rl.evaluation.runner import check_comparator, evaluate
    from rsp_rl.inference.engines import SharedEngines
    from rsp_rl.models.folder import resolve_model_folder

    base = load_protocol(args.protocol, args.overrides)
    protocols = condition_protocols(
        args.figure, base, samples=args.samples, comparators=args.comparator
    )
    engine = engine_options(args)
    model = resolve_model_folder(args.model)
    for protocol in protocols.values():  # a bad setting must not show after the others' hours
        check_comparator(protocol, model, engine)
    failed = False
    # One start for all: the conditions are to differ in their soft prompts alone.
    thoughts = any(protocol.law for protocol in protocols.values())
    with SharedEngines(model, engine, soft_prompts=True, thoughts=thoughts) as engines:
        for name, protocol in protocols.items():
            folder = EvaluationFolder(args.output / name)
            outcome = evaluate(
                *(model, protocol, folder.step(0)),
                engine=engine,
                engines=engines,
                data_dir=args.data_dir,
            )
            say(f"{name}: {outcome_line(outcome)}")
            write_outputs(folder)
            for benchmark, why in outcome.failed.items():
                print(f"error: {name}, {benchmark}: {why}", file=sys.stderr)
                failed = True
    print(f"evaluations  {args.output}/{{{','.join(protocols)}}}")
    return 1 if failed else 0


def condition_protocols(
    figure: str,
    base: Protocol,
    *,
    samples: int = 16,
    comparators: Sequence[Sequence[str]] = (),
) -> dict[str, Protocol]:
    """A protocol a condition.

    Args:
        figure: A key of `FIGURES`.
        base: What the conditions have in common; L is its `rsp.length`.
        samples: Answers a problem for `pass-at-n`; the others have the protocol's.
        comparators: For `trained-or-random`, a method and `key=value` settings each.

    Raises:
        ConfigError: If it sets no L, or a law without one where the figure is of soft prompts, or
            if a comparator is unknown, twice there or badly set.
    """
    if comparators and figure != "trained-or-random":
        raise ConfigError(f"--comparator is for trained-or-random; {figure} has none")
    if base.rsp.adds:
        _check_adds(figure, base.rsp)
    elif not base.rsp.enabled:
        raise ConfigError(
            "rsp.length is 0: say how long the soft prompts are, such as rsp.length=20 (the "
            "paper's Table 7 has 10, 15 or 20 by model and benchmark)"
        )
    number = {"samples": samples} if figure == "pass-at-n" else {}
    protocols = {
        name: replace(
            base,
            name=name,
            rsp=replace(base.rsp, **soft_prompts),
            benchmarks=tuple(replace(plan, **sampling, **number) for plan in base.benchmarks),
        )
        for name, (soft_prompts, sampling) in FIGURES[figure].items()
    }
    for method, *settings in comparators:
        if method in protocols:
            raise ConfigError(f"--comparator {method} is given twice; evaluate them one by one")
        protocols[method] = _comparator_protocol(base, method, settings)
    return protocols


def _check_adds(figure: str, rsp: RspOptions) -> None:
    if figure != "pass-at-n":
        raise ConfigError(
            f"rsp.law={rsp.law} inserts nothing, and {figure} compares soft prompts that are "
            "inserted; leave rsp.law out and set rsp.length, or evaluate pass-at-n"
        )
    if not rsp.enabled:
        raise ConfigError(
            f"rsp.law={rsp.law} with rsp.scale=0 adds nothing: say with rsp.scale how large its "
            "rows are, such as rsp.scale=5"
        )


def _comparator_protocol(base: Protocol, method: str, settings: Sequence[str]) -> Protocol:
    """The protocol with another method's soft prompts: as many, and where, as that method has."""
    try:
        given = OmegaConf.to_container(OmegaConf.from_dotlist(list(settings)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"--comparator {method} {' '.join(settings)}: {error}") from error
    rsp = {"seed": base.rsp.seed, "mode": base.rsp.mode, **given.pop("rsp", {})}
    changes = {"name": method, "rsp": rsp, "comparator": {"method": method, **given}}
    return Protocol.from_dict(base.to_dict() | changes)
