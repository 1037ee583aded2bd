"""What thinking by a law costs over ordinary sampling, in vLLM.

    python scripts/bench/thoughts.py --model FOLDER --requests 1 16 64 --output runs/thoughts.json

Every round generates the same number of tokens for the same prompts by each law and by ordinary
sampling (temperature 1), one after the other in one process. Printed are tokens a second by the
clock; core milliseconds of a step; their ratio to ordinary sampling, with the noise of the
measurement (`paired.py`); and how much of a step the law itself takes beside the least that it must
do: look at all logits once, look up what it mixes, and multiply for mixtures of the whole table.

`without the worker` is ordinary sampling by vLLM's own worker: what requests without a law pay.
With `--operations` nothing is timed: torch's operations are counted that a step of the engine has
beyond one of ordinary sampling (`operations.py`). On a GPU each is a launch, and launches, not
arithmetic, are what a law costs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from operations import operations
from paired import compare, core_seconds, write_report

from rsp_rl.inference.requests import EngineOptions, Request
from rsp_rl.inference.vllm_engine import LocalEngine
from rsp_rl.thoughts.embedding import TableEmbedding
from rsp_rl.thoughts.law import InputLaw, Moment
from rsp_rl.thoughts.names import law_from_settings
from rsp_rl.thoughts.noise import Noise
from rsp_rl.thoughts.phases import Phases
from rsp_rl.thoughts.settings import Thinking

LAWS: dict[str, tuple[str, dict[str, Any]]] = {
    "soft_thinking k10": ("soft_thinking", {}),
    "gumbel k5": ("gumbel", {"k": 5}),
    "multiplex k3": ("multiplex", {}),
    "multiplex k16": ("multiplex", {"k": 16}),
    "dirichlet k10": ("dirichlet", {}),
    "moi k20": ("moi", {}),
    "soft": ("soft", {"rms": 0.1}),
    "hidden": ("hidden", {}),
    "neighbours": ("neighbours", {}),
    "neighbours, everywhere": ("neighbours", {"rate": 1.0}),
    "neftune": ("neftune", {}),
}
#: Requests and tokens of each, twice, of which operations are counted.
_COUNT, _COUNTED = 16, (4, 12)
PLAIN = {
    "greedy": {"temperature": 0.0},
    "seeded": {"seed": 1},
    "T .6, top-p .95, top-k 30": {"temperature": 0.6, "top_p": 0.95, "top_k": 30},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--output", type=Path, help="json file")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 16, 64], help="at once")
    parser.add_argument("--tokens", type=int, default=64, help="of each request")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--operations", action="store_true", help="count them, time nothing")
    args = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Engines are to work in this process, whose core's seconds are measured.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    options = EngineOptions(
        dtype=args.dtype, max_num_seqs=max(args.requests), max_model_len=args.tokens + 32
    )
    laws = {name: law_from_settings(*LAWS[name]) for name in args.laws}
    if args.operations:
        counted = count_operations(LocalEngine(str(args.model), options, True, True), laws)
        if args.output:
            write_report(args.output, "operations", {"model": str(args.model), "results": counted})
        return
    ours, stock = engines(args.model, options)
    results = []
    for count in args.requests:
        walls: dict[str, list[float]] = {}
        timed = partial(measured, walls, args.tokens)
        plain = asked(count, args.tokens)
        candidates = {"without the worker": timed("without the worker", stock, plain)}
        for name, changes in PLAIN.items():
            other = [replace(r, sampling={**r.sampling, **changes}) for r in plain]
            candidates[name] = timed(name, ours, other)
        for name, law in laws.items():
            candidates[name] = timed(name, ours, thinking(law, count, args.tokens))
        found = compare(timed("ordinary", ours, plain), candidates, args.rounds)
        ordinary = next(iter(found.values())).baseline
        print(f"\n{count} requests, ordinary sampling {1000 * ordinary / args.tokens:.2f} core ms "
              f"a step, {rate(walls['ordinary'], count * args.tokens):.0f} tokens/s")  # fmt: skip
        for name, ratio in found.items():
            row = {
                "requests": count,
                "way": name,
                "tokens_s": rate(walls[name], count * args.tokens),
                "core_ms_a_step": 1000 * ratio.candidate / args.tokens,
                "speed": 1 / ratio.value,
                "noise": ratio.noise,
            }
            if name in laws:
                row |= alone(laws[name], count, ours)
            results.append(row)
            print("  " + told(row), flush=True)
    if args.output:
        write_report(args.output, "thoughts", {"model": str(args.model), "results": results})


def count_operations(engine: LocalEngine, laws: dict[str, InputLaw]) -> dict[str, float]:
    """Of a step, beyond one of ordinary sampling; its starts and ends cancel."""

    def of_a_step(asked_for: Callable[[int], list[Request]]) -> float:
        counts = []
        for tokens in _COUNTED:
            work = partial(generate, engine, asked_for(tokens))
            work()  # what is made once is made
            counts.append(sum(operations(work).values()))
        return (counts[1] - counts[0]) / (_COUNTED[1] - _COUNTED[0])

    ordinary = of_a_step(partial(asked, _COUNT))
    print(f"ordinary sampling: {ordinary:.0f} operations a step")
    found = {"ordinary": ordinary}
    for name, law in laws.items():
        found[name] = of_a_step(partial(thinking, law, _COUNT)) - ordinary
        print(f"  {name:26} {found[name]:.0f} more operations", flush=True)
    return found


def generate(engine: LocalEngine, requests: list[Request]) -> int:
    """Tokens that were made."""
    return sum(done.tokens for batch in engine.generate(requests) for done in batch)


def measured(
    walls: dict[str, list[float]], tokens: int, name: str, engine: Any, requests: list[Request]
) -> Callable[[], float]:
    """Generates once and returns the core's seconds; those of the clock are kept by the name."""

    def work() -> None:
        made = [done.tokens for batch in engine.generate(requests) for done in batch]
        assert made == [tokens] * len(requests), f"{name}: {made} tokens"

    def once() -> float:
        begun = time.perf_counter()
        seconds = core_seconds(work)
        walls.setdefault(name, []).append(time.perf_counter() - begun)
        return seconds

    return once


def told(row: dict[str, Any]) -> str:
    """A line."""
    line = (
        f"{row['way']:26} {row['tokens_s']:8.0f} tokens/s {row['core_ms_a_step']:8.2f} core ms a "
        f"step, speed {row['speed']:.3f} (noise {row['noise']:.3f})"
    )
    if "law_ms" in row:
        line += f"; the law {row['law_ms']:.2f} ms, its floor {row['floor_ms']:.2f}"
    return line


def rate(seconds: list[float], tokens: int) -> float:
    """Tokens a second by the clock, of the best round."""
    return tokens / min(seconds)


def engines(model: Path, options: EngineOptions) -> tuple[LocalEngine, LocalEngine]:
    """Ours, and one with vLLM's own worker."""
    import vllm

    made = [LocalEngine(str(model), options, soft_prompts=True, thoughts=True)]
    stock = vllm.LLM
    vllm.LLM = lambda *args, **kwargs: stock(*args, **{**kwargs, "worker_cls": "auto"})
    try:
        made.append(LocalEngine(str(model), options, soft_prompts=True))
    finally:
        vllm.LLM = stock
    return made[0], made[1]


def asked(count: int, tokens: int) -> list[Request]:
    """Requests without a law, of short prompts that differ."""
    sampling = {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stop": [],
    }
    return [
        Request(number, [10 + (number + 7 * place) % 90 for place in range(8)], sampling)
        for number in range(count)
    ]


def thinking(law: InputLaw, count: int, tokens: int) -> list[Request]:
    """The same requests, all of thoughts."""
    phases = Phases(max_thoughts=tokens)
    return [replace(r, thinking=Thinking(law, phases, r.number)) for r in asked(count, tokens)]


def alone(law: InputLaw, count: int, engine: Any, times: int = 10) -> dict[str, float]:
    """Milliseconds of one step of a law and its inputs, outside an engine, and its floor."""
    core = engine._engine._engine.engine_core.engine_core
    runner = core.model_executor.driver_worker.worker.model_runner
    embedding: TableEmbedding = runner._embedding
    vocabulary = runner.model_config.get_vocab_size()
    device, generator = runner.device, torch.Generator().manual_seed(0)
    logits_NV = 4 * torch.randn(count, vocabulary, generator=generator).to(device)
    hidden_ND = embedding.rows(torch.zeros(count, dtype=torch.int64, device=device))
    seeds_N = torch.arange(count)
    moment = Moment(logits_NV, Noise(seeds_N, seeds_N), embedding, hidden_ND)
    ids_NK = torch.zeros(count, law.slots, dtype=torch.int64, device=device)

    def step() -> None:
        law.embed(law.step(moment), embedding)

    def floor() -> None:
        if law.mixes_all:
            embedding.mixture(torch.softmax(logits_NV, 1))
        elif not law.dense:
            logits_NV.amax(1)
            embedding.rows(ids_NK).sum(1)

    figures = {}
    with torch.inference_mode():
        for name, work in (("law_ms", step), ("floor_ms", floor)):
            work()
            figures[name] = 1000 * min(core_seconds(work, times) for _ in range(3))
    return figures


if __name__ == "__main__":
    main()
