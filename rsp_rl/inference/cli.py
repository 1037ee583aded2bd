"""`rsp-rl generate`: answer a benchmark's problems with soft prompts, on vLLM or Hugging Face."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.data.templates import TEMPLATES
from rsp_rl.inference.requests import KINDS
from rsp_rl.options import MODES
from rsp_rl.placement import POSITIONS

_DESCRIPTION = """\
Answer a benchmark's problems with random soft prompts, grade the answers and keep both. What was
cut off is taken up again by the same command. `rsp-rl eval` does the same by a protocol file, for
every checkpoint of a run.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `generate` command."""
    parser = commands.add_parser(
        "generate",
        help="answer a benchmark's problems with soft prompts",
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
    rsp.add_argument("--rsp.length", dest="rsp_length", type=int, default=20, help="L; 0 for none")
    rsp.add_argument("--rsp.position", dest="rsp_position", choices=POSITIONS, default="suffix")
    rsp.add_argument(
        "--rsp.mode", dest="rsp_mode", choices=MODES, default="independent",
        help="a draw for every sample, or one for all samples of a problem",
    )  # fmt: skip
    rsp.add_argument("--rsp.scale", dest="rsp_scale", type=float, default=1.0, help="of sigma_E")
    rsp.add_argument("--rsp.seed", dest="rsp_seed", type=int, default=42)
    engine = parser.add_argument_group("engine")
    engine.add_argument("--engine", choices=KINDS, default="vllm")
    engine.add_argument("--dtype", default="auto", help="bfloat16 on a GPU, float32 without one")
    engine.add_argument("--tensor-parallel", type=int, default=1, help="GPUs an engine")
    engine.add_argument("--data-parallel", type=int, default=1, help="vLLM engines")
    engine.add_argument("--max-num-seqs", type=int, default=256, help="samples at once an engine")
    parser.add_argument("--data-dir", type=Path, help="folder with the benchmarks' files")
    parser.add_argument(
        "--output", type=Path, help="where to write (default: runs/generate/MODEL/SETTINGS)"
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Generate what `args` asks for.

    Returns:
        Exit status: 1 if a benchmark failed; the others are written all the same.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Imported here: `rsp-rl --help` need not wait for torch and transformers.
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.protocol import Protocol
    from rsp_rl.evaluation.runner import evaluate
    from rsp_rl.evaluation.sweep import outcome_line, write_outputs
    from rsp_rl.inference.requests import EngineOptions
    from rsp_rl.preflight import resolve_model_folder

    plan = {
        "samples": args.samples,
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "limit": args.limit,
    }
    names = list(dict.fromkeys(args.benchmark))
    protocol = Protocol.from_dict(
        {
            "name": "generate",
            "template": args.template,
            "max_tokens": args.max_tokens,
            "seed": args.seed,
            "rsp": {
                name: getattr(args, f"rsp_{name}")
                for name in ("length", "position", "mode", "scale", "seed")
            },
            "benchmarks": dict.fromkeys(names, plan),
            "headline": names,
        }
    )
    engine = EngineOptions(
        kind=args.engine,
        dtype=args.dtype,
        tensor_parallel=args.tensor_parallel,
        data_parallel=args.data_parallel,
        max_num_seqs=args.max_num_seqs,
    )
    model = resolve_model_folder(args.model)
    name = re.sub(r"[^\w.-]+", "_", args.model.strip("/."))
    settings = f"{args.engine}-{args.rsp_position}{args.rsp_length}-{protocol.fingerprint()[:6]}"
    folder = EvaluationFolder(args.output or Path("runs/generate") / name / settings)
    outcome = evaluate(model, protocol, folder.step(0), engine=engine, data_dir=args.data_dir)
    print(outcome_line(outcome), file=sys.stderr)
    write_outputs(folder)
    print(f"samples  {folder.step(0).root}\nreport   {folder.report}")
    for failed, why in outcome.failed.items():
        print(f"error: {failed}: {why}", file=sys.stderr)
    return 1 if outcome.failed else 0
