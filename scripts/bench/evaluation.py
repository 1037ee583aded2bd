"""What the evaluation harness costs over a bare `vllm.LLM.generate` on the same requests.

    bash recipes/dapo_rsp_tiny_cpu.sh
    python scripts/bench/evaluation.py --output runs/bench_evaluation --extra-layers 22 \
        --model runs/dapo_rsp_tiny_cpu/checkpoints/global_step_30/merged \
        sampling.temperature=1.0 sampling.samples=30

Each round runs both, each in a process of its own, in turn; every run loads the model, generates
and ends. The harness also grades every output and writes it to disk. `timeline.png` shows outputs
generated and graded over time: a gap between the two curves would be grading that lags behind.

The tiny model gives hundreds of answers a second, where a real one on a GPU gives tens.
`--extra-layers` puts layers into it that compute and change nothing: its answers stay as they are,
and come at a real model's rate.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from paired import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--output", type=Path, required=True, help="folder for results")
    parser.add_argument("--protocol", default="tiny")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--extra-layers", type=int, default=0, help="that change no answer")
    parser.add_argument("--run", choices=("bare", "harness"), help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="changes to the protocol")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.run:
        result = {"bare": bare, "harness": harness}[args.run](args)
        (args.output / f"{args.run}.json").write_text(json.dumps(result))
        return
    model = deepen(args.model, args.extra_layers, args.output / "model")
    rounds: dict[str, list[dict]] = {"bare": [], "harness": []}
    for number in range(args.rounds):
        for name in rounds if number % 2 == 0 else reversed(rounds):
            command = [sys.executable, __file__, *sys.argv[1:], "--run", name]
            command += ["--model", str(model)]  # the last one counts
            begun = time.monotonic()
            subprocess.run(command, check=True)
            # The whole process: either way of running vLLM also has an engine to end.
            seconds = time.monotonic() - begun
            result = json.loads((args.output / f"{name}.json").read_text()) | {"seconds": seconds}
            rounds[name].append(result)
            print(
                f"round {number + 1}: {name:<8} {result['seconds']:7.1f} s, "
                f"{result['samples']} samples, {result['tokens']} tokens",
                flush=True,
            )
    times = {name: [run["seconds"] for run in runs] for name, runs in rounds.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    pairs = [h / b for h, b in zip(times["harness"], times["bare"], strict=True)]
    print(f"harness {medians['harness']:.1f} s, bare {medians['bare']:.1f} s (medians of "
          f"{args.rounds}): ratio {medians['harness'] / medians['bare']:.3f}, by round "
          + " ".join(f"{pair:.3f}" for pair in pairs))  # fmt: skip
    outputs = rounds["harness"][-1]["times"]
    plot(outputs, args.output / "timeline.png")
    lag = [graded - finished for finished, graded in outputs]
    print(f"an output waits for its grade {1000 * statistics.median(lag):.1f} ms (median), "
          f"{1000 * max(lag):.0f} ms at most")  # fmt: skip
    results = {
        "seconds": times,
        "ratios": pairs,
        "ratio": medians["harness"] / medians["bare"],
        "grading_lag_ms": {"median": 1000 * statistics.median(lag), "max": 1000 * max(lag)},
    }
    write_report(args.output / "result.json", "evaluation", results)


def deepen(model: Path, layers: int, folder: Path) -> Path:
    """A copy of a model with more layers, each of which adds zero to the residual stream."""
    if not layers:
        return model
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rsp_rl.models.folder import load_tokenizer

    shallow = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = AutoConfig.from_pretrained(model)
    depth = config.num_hidden_layers + layers
    config.update({"num_hidden_layers": depth, "layer_types": None})
    config = type(config)(**config.to_dict())
    deep = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    deep.load_state_dict(shallow.state_dict(), strict=False)
    for layer in deep.model.layers[-layers:]:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    ids = torch.arange(20)[None]
    torch.testing.assert_close(deep(ids).logits, shallow(ids).logits)
    deep.generation_config = shallow.generation_config
    deep.save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    return folder


def bare(args: argparse.Namespace) -> dict:
    """`LLM.generate`, as a user would write it."""
    from rsp_rl.data.benchmarks import load_benchmark
    from rsp_rl.evaluation.protocol import choose_problems, load_protocol
    from rsp_rl.evaluation.questions import questions
    from rsp_rl.inference.requests import EngineOptions, has_gpu
    from rsp_rl.models.folder import load_tokenizer

    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams

    protocol = load_protocol(args.protocol, args.overrides)
    tokenizer = load_tokenizer(args.model)
    requests = [
        question.request
        for plan in protocol.benchmarks
        for question in questions(
            plan,
            choose_problems(plan, load_benchmark(plan.benchmark, args.data_dir), protocol.seed),
            protocol,
            tokenizer,
            dtype="float32",
            context=None,
        )
    ]
    engine = LLM(
        str(args.model),
        dtype=EngineOptions().resolved_dtype(),
        max_num_seqs=args.max_num_seqs,
        enforce_eager=not has_gpu(),
        enable_prefix_caching=True,
        enable_chunked_prefill=has_gpu(),  # see rsp_rl.inference.vllm_engine
    )
    outputs = engine.generate(
        [{"prompt_token_ids": request.token_ids} for request in requests],
        [SamplingParams(**request.sampling) for request in requests],
    )
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"samples": len(outputs), "tokens": tokens}


def harness(args: argparse.Namespace) -> dict:
    """`rsp_rl.evaluation.runner.evaluate`, with its grading and its files."""
    from rsp_rl.evaluation.folder import EvaluationFolder
    from rsp_rl.evaluation.protocol import load_protocol
    from rsp_rl.evaluation.runner import evaluate
    from rsp_rl.inference.requests import EngineOptions

    begun = time.monotonic()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    folder = EvaluationFolder(args.output / "evaluation")
    shutil.rmtree(folder.root, ignore_errors=True)
    times: list[tuple[float, float]] = []
    outcome = evaluate(
        args.model,
        load_protocol(args.protocol, args.overrides),
        folder.step(0),
        engine=EngineOptions(max_num_seqs=args.max_num_seqs),
        data_dir=args.data_dir,
        on_graded=lambda _, finished, graded: times.append((finished - begun, graded - begun)),
    )
    tokens = sum(
        json.loads(line)["tokens"]
        for file in folder.step(0).root.glob("*.samples.jsonl")
        for line in file.read_text().splitlines()
    )
    return {"samples": outcome.generated, "tokens": tokens, "times": times}


def plot(times: list[tuple[float, float]], file: Path) -> None:
    """Outputs generated and graded over the seconds of a run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    count = range(1, len(times) + 1)
    axis.step(sorted(finished for finished, _ in times), count, label="generated", linewidth=4)
    axis.step(sorted(graded for _, graded in times), count, label="graded and written")
    axis.set(xlabel="seconds", ylabel="outputs", title="Grading keeps up with generation")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main()
