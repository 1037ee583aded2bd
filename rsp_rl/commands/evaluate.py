"""`rsp-rl eval`: evaluate a model, or every checkpoint of a run."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.inference.options import add_engine_options, engine_options

_DESCRIPTION = """\
Evaluate a Hugging Face model (folder or name on the hub), one checkpoint (global_step_N), or every
checkpoint of a training run. What is done is skipped, what was cut off is taken up again: after a
crash, run the same command again.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `eval` command."""
    parser = commands.add_parser(
        "eval",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", nargs="?", help="model, checkpoint, or run folder")
    parser.add_argument(
        "overrides",
        nargs="*",
        help="changes to the protocol, such as max_tokens=4096 seed=1 rsp.length=20 template=abel",
    )
    parser.add_argument(
        "--protocol",
        default="rsp_paper",
        help="name in eval/protocols, or a YAML file (default: rsp_paper)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="where to write (default: RUN_DIR/evaluation/PROTOCOL, for a model "
        "runs/evaluation/MODEL/PROTOCOL; a protocol with overrides gets its hash as a suffix)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder with the benchmarks' files (default: RSP_RL_DATA_DIR, else the hub)",
    )
    checkpoints = parser.add_argument_group("checkpoints of a run")
    checkpoints.add_argument(
        "--steps", type=_steps, help="which, such as 0,10,20 (default: all, 0 is the base model)"
    )
    checkpoints.add_argument(
        "--watch", action="store_true", help="evaluate each checkpoint as it lands, to the last one"
    )
    checkpoints.add_argument("--base-model", help="model of step 0 (default: the run's)")
    checkpoints.add_argument(
        "--keep-merged",
        choices=("yes", "no"),
        default="yes",
        help="keep the Hugging Face folders that are made of checkpoints (default: yes)",
    )
    add_engine_options(parser)
    parser.add_argument(
        "--rescore",
        type=Path,
        metavar="FILE",
        help="grade stored outputs anew, without a model: a *.samples.jsonl file or a folder",
    )
    parser.set_defaults(func=run)


def _steps(text: str) -> list[int]:
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of steps such as 0,10,20") from None
    return sorted(set(steps))


def run(args: argparse.Namespace) -> int:
    """Evaluate what `args` names.

    Returns:
        Exit status: 1 if anything failed; what did not fail is written all the same.

    Raises:
        ConfigError: If nothing is named, or model, protocol or engine cannot be used.
        RunFolderError: If a folder is not what the options take it for, or cannot be used.
    """
    if args.rescore:
        return _rescore(args.rescore)
    if not args.path:
        raise ConfigError("name a model, a checkpoint or a run folder; see rsp-rl eval --help")
    # Imported here: `rsp-rl eval --help` need not wait for torch and transformers.
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.outputs import outcome_line, write_outputs
    from rsp_rl.evaluation.protocol import load_protocol
    from rsp_rl.evaluation.runner import evaluate
    from rsp_rl.evaluation.sweep import Sweep
    from rsp_rl.evaluation.trained_run import TrainedRun, checkpoint_run
    from rsp_rl.models.folder import resolve_model_folder

    protocol = load_protocol(args.protocol, args.overrides)
    engine = engine_options(args)
    # A changed protocol is another one: its results do not mix with the original's.
    changed = args.overrides and protocol.name == load_protocol(args.protocol).name
    results = f"{protocol.name}-{protocol.fingerprint()[:6]}" if changed else protocol.name
    path, steps = Path(args.path).expanduser(), args.steps
    if single := checkpoint_run(path):
        path, steps = single[0], [single[1]]
    if (trained := TrainedRun.open(path)) is not None:
        folder = EvaluationFolder(args.output or path / "evaluation" / results)
        sweep = Sweep(
            run=trained,
            protocol=protocol,
            folder=folder,
            engine=engine,
            data_dir=args.data_dir,
            steps=steps,
            base_model=args.base_model,
            keep_merged=args.keep_merged == "yes",
        )
        failures = sweep.watch() if args.watch else sweep.once()
    else:
        if steps or args.watch:
            raise RunFolderError(
                f"{path} holds no checkpoints (global_step_N); is it a run folder?"
            )
        model = resolve_model_folder(args.path)
        name = re.sub(r"[^\w.-]+", "_", args.path.strip("/."))
        folder = EvaluationFolder(args.output or Path("runs/evaluation") / name / results)
        outcome = evaluate(model, protocol, folder.step(0), engine=engine, data_dir=args.data_dir)
        print(outcome_line(outcome), file=sys.stderr)
        failures = [f"{name}: {why}" for name, why in outcome.failed.items()]
        write_outputs(folder)
    if folder.summary_markdown.is_file():
        print(folder.summary_markdown.read_text())
    print(
        f"evaluation  {folder.root}\nreport      {folder.report}\nlog         {folder.engine_log}"
    )
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _rescore(path: Path) -> int:
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.outputs import write_outputs
    from rsp_rl.evaluation.rescore import rescore, sample_files

    files = sample_files(path)
    for file in files:
        result = rescore(file)
        print(f"{file}: accuracy {result.accuracy:.4f}, {len(result.changed)} verdicts changed")
        for old, new in result.changed[:10]:
            print(
                f"  problem {new['problem']}, sample {new['sample']}: {old['correct']} -> "
                f"{new['correct']}: {new['extracted']!r} against {new['gold']!r}"
            )
    for root in sorted({file.parent.parent for file in files}):
        if EvaluationFolder(root).steps():
            write_outputs(EvaluationFolder(root))
    return 0
