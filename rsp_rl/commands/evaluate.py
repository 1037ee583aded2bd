"""`rsp-rl eval`: evaluate a model, or every checkpoint of a run."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.inference.options import add_engine_options, engine_options

if TYPE_CHECKING:
    from rsp_rl.evaluation.modes import Mode

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
    from rsp_rl.evaluation.modes import evaluate_model, modes_in, results_name
    from rsp_rl.evaluation.protocol import load_modes
    from rsp_rl.evaluation.sweep import Sweep
    from rsp_rl.evaluation.trained_run import TrainedRun, checkpoint_run
    from rsp_rl.latent.run_folder import refuse_thinkers
    from rsp_rl.models.folder import resolve_model_folder

    protocols = load_modes(args.protocol, args.overrides)
    engine = engine_options(args)
    results = results_name(args.protocol, args.overrides)
    path, steps = Path(args.path).expanduser(), args.steps
    refuse_thinkers(path)
    if single := checkpoint_run(path):
        path, steps = single[0], [single[1]]
    if (trained := TrainedRun.open(path)) is not None:
        root = args.output or path / "evaluation" / results
        modes = modes_in(root, protocols)
        sweep = Sweep(
            run=trained,
            modes=modes,
            engine=engine,
            data_dir=args.data_dir,
            steps=steps,
            base_model=args.base_model,
            keep_merged=args.keep_merged == "yes",
            on_written=lambda: _tabulate(root, modes),
        )
        failures = sweep.watch() if args.watch else sweep.once()
    else:
        if steps or args.watch:
            raise RunFolderError(
                f"{path} holds no checkpoints (global_step_N); is it a run folder?"
            )
        model = resolve_model_folder(args.path)
        name = re.sub(r"[^\w.-]+", "_", args.path.strip("/."))
        root = args.output or Path("runs/evaluation") / name / results
        modes = modes_in(root, protocols)
        failures = evaluate_model(modes, model, engine, args.data_dir)
        _tabulate(root, modes)
    if [mode.name for mode in modes] == [""] and modes[0].folder.summary_markdown.is_file():
        print(modes[0].folder.summary_markdown.read_text())
    print(f"evaluation  {root}")
    for mode in modes:
        print(f"report      {mode.folder.report}\nlog         {mode.folder.engine_log}")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _tabulate(root: Path, modes: Sequence[Mode]) -> None:
    """What an evaluation's modes say, side by side, where there are any and something is done.

    Steps that cannot stand beside each other keep no other from being evaluated.
    """
    from rsp_rl.analysis.mode_table import analyse
    from rsp_rl.console.screen import say

    names = [mode.name for mode in modes if any(mode.folder.root.glob("step_*/*.metrics.json"))]
    if any(names):
        try:
            analyse([str(root)], root)
        except RunFolderError as error:
            say(f"warning: no table of modes: {error}")


def _rescore(path: Path) -> int:
    from rsp_rl.evaluation.folder import EvaluationFolder, is_of_modes
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
    roots = sorted({file.parent.parent for file in files})
    for root in roots:
        if EvaluationFolder(root).steps():
            write_outputs(EvaluationFolder(root))
    for root in sorted({root.parent for root in roots if is_of_modes(root.parent)}):
        from rsp_rl.analysis.mode_table import analyse

        analyse([str(root)], root)
    return 0
