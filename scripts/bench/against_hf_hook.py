"""Generation with soft prompts: our vLLM engine beside Hugging Face `generate` with a hook.

    python scripts/bench/against_hf_hook.py
    python scripts/bench/against_hf_hook.py --model Qwen/Qwen2.5-0.5B-Instruct

Hugging Face is how the paper's own harness injects: batches of 16, H written into the embedding's
output by a forward hook. Both get the same prompts and soft prompts on the same model, in this
process's run, in turn; tokens a second at 1 to 256 samples that wait at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from paired import Ratio, compare, write_report
from random_model import save_random_model

from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.draws.record import SoftPromptRecord
from rsp_rl.draws.seeds import rollout_seed
from rsp_rl.inference.huggingface import HuggingFaceEngine
from rsp_rl.inference.requests import EngineOptions, Engines, Request
from rsp_rl.inference.vllm_engine import LocalEngine
from rsp_rl.models.folder import load_tokenizer, resolve_model_folder
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.placement.prompt import placeholder_id

BATCH, LENGTH = 16, 20


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("against_hf_hook.json"))
    parser.add_argument("--model", help="Hugging Face folder or name; a random model by default")
    parser.add_argument("--hidden-size", type=int, default=512, help="of the random model")
    parser.add_argument("--layers", type=int, default=8, help="of the random model")
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--tokens", type=int, default=48, help="most output tokens a sample")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    with nullcontext() if args.model else tempfile.TemporaryDirectory() as folder:
        if args.model:
            model = resolve_model_folder(args.model)
        else:
            model = save_random_model(Path(folder), args.hidden_size, args.layers)
        options = EngineOptions(max_num_seqs=max(args.samples), max_model_len=512)
        ours = LocalEngine(str(model), options, soft_prompts=True)
        theirs = HuggingFaceEngine(
            model, dataclasses.replace(options, kind="huggingface", max_num_seqs=BATCH)
        )
        try:
            cells = [measure(ours, theirs, model, samples, args) for samples in args.samples]
        finally:
            ours.close()
    write_report(args.output, "against_hf_hook", {"model": args.model or "random", "cells": cells})


def measure(
    ours: Engines, theirs: Engines, model: Path, samples: int, args: argparse.Namespace
) -> dict[str, Any]:
    """One number of samples that wait at once."""

    turns = itertools.count()

    def seconds_per_token(engine: Engines) -> Callable[[], float]:
        def once() -> float:
            requests = make_requests(model, next(turns), samples, args.tokens)
            begun = time.perf_counter()
            tokens = sum(done.tokens for batch in engine.generate(requests) for done in batch)
            return (time.perf_counter() - begun) / tokens

        return once

    found: Ratio = compare(
        seconds_per_token(theirs), {"ours": seconds_per_token(ours)}, args.rounds
    )["ours"]
    print(
        f"{samples:>4} samples: vLLM {1 / found.candidate:8.1f} tokens/s, Hugging Face with a hook "
        f"{1 / found.baseline:8.1f}; {1 / found.value:.2f} times (noise {found.noise:.2f})",
        flush=True,
    )
    return {
        "samples": samples,
        "tokens_per_second": {"vllm": 1 / found.candidate, "huggingface": 1 / found.baseline},
        "times": 1 / found.value,
        "noise": found.noise,
    }


def make_requests(model: Path, turn: int, samples: int, tokens: int) -> list[Request]:
    """Eight samples a question, with soft prompts that no other turn's requests have."""
    tokenizer, stats = load_tokenizer(model), embedding_stats(model)
    requests = []
    for number in range(samples):
        question = f"Compute {'+'.join(str(1 + (number // 8 + n) % 9) for n in range(30))}."
        placed = place_in_chat(tokenizer, [{"role": "user", "content": question}], LENGTH, "suffix")
        sampling = {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "max_tokens": tokens,
            "stop": [],
            "stop_token_ids": [],
            "seed": number,
        }
        record = SoftPromptRecord(
            seed=rollout_seed(0, turn, number // 8, number % 8),
            start=placed.start,
            length=LENGTH,
            mean=stats.mean,
            std=stats.std,
            dtype=EngineOptions().resolved_dtype(),
            placeholder_id=placeholder_id(tokenizer),
        )
        requests.append(Request(number, placed.token_ids, sampling, record))
    return requests


if __name__ == "__main__":
    main()
