"""Where an update's time goes on a real model on a CPU, and what the actor's engine saves of it.

    python scripts/bench/real_model.py --model runs/smollm2-135m

Forward and backward of one packed micro-batch in plain PyTorch, in turn: as verl computes it
without flash attention (attention over the whole pack, logits of all positions, log-softmax row by
row), and with each of the engine's ways on top of the one before: sequences attend one by one,
logits of the responses alone, log-probs in blocks. `padded` is the floor: sequences of one length,
nothing packed. In fp32 and bfloat16, with one thread and with all. Prompts have 57 tokens,
responses about 30.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from paired import compare, seconds, write_report
from transformers import AutoModelForCausalLM
from verl.utils.torch_functional import logprobs_from_logits_v2

from rsp_rl.models.small import weights_of
from rsp_rl.training.label_log_probs import label_log_probs
from rsp_rl.training.verl_plugin.attention_by_sequence import AttentionBySequence

PROMPT, RESPONSES = 57, (20, 41)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Pack:
    """One packed micro-batch: tokens [1, T], positions [1, T], lengths, and what responses read."""

    ids: torch.Tensor
    positions: torch.Tensor
    lengths: list[int]
    read: torch.Tensor

    @classmethod
    def of(cls, tokens: int, vocabulary: int) -> Pack:
        """Random sequences of about so many tokens."""
        generator = torch.Generator().manual_seed(0)
        lengths: list[int] = []
        while sum(lengths) < tokens:
            lengths.append(PROMPT + int(torch.randint(*RESPONSES, (1,), generator=generator)))
        positions = torch.cat([torch.arange(n) for n in lengths])
        ids = torch.randint(vocabulary, (1, len(positions)), generator=generator)
        return cls(ids, positions[None], lengths, (positions >= PROMPT - 1).nonzero()[:, 0])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=1024, help="of the micro-batch, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("real_model.json"))
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    cells: list[dict[str, Any]] = []
    for dtype in DTYPES:
        for threads in sorted({1, cores}):
            cells += measure(args, dtype, threads)
    results = {"weights": weights_of(args.model), "tokens": args.tokens, "cells": cells}
    write_report(args.output, "real_model", results)


def measure(args: argparse.Namespace, dtype: str, threads: int) -> list[dict[str, Any]]:
    """All ways in one dtype with so many threads, over verl's."""
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(
        args.model, dtype=DTYPES[dtype], attn_implementation="sdpa"
    )
    pack = Pack.of(args.tokens, model.config.vocab_size)
    attention = AttentionBySequence()
    attention.attach(model)
    by_sequence = attention.name
    ways = {
        "verl's": ("sdpa", False, logprobs_from_logits_v2),
        "by sequence": (by_sequence, False, logprobs_from_logits_v2),
        "and responses' logits": (by_sequence, True, logprobs_from_logits_v2),
        "and log-probs in blocks": (by_sequence, True, label_log_probs),
    }

    def cost(way: tuple[str, bool, Callable]) -> Callable[[], float]:
        def update() -> None:
            model.set_attn_implementation(way[0])
            attention.lengths = pack.lengths
            log_probs(model, pack, *way[1:]).mean().backward()
            model.zero_grad(set_to_none=True)

        return lambda: seconds(update)

    def padded() -> None:
        model.set_attn_implementation("sdpa")
        rows = len(pack.lengths)
        ids = pack.ids[0, : rows * min(pack.lengths)].view(rows, -1)
        logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        model.zero_grad(set_to_none=True)

    candidates = {name: cost(way) for name, way in list(ways.items())[1:]}
    candidates["padded"] = lambda: seconds(padded)
    found = compare(cost(ways["verl's"]), candidates, args.rounds)
    total = sum(pack.lengths)
    cells = []
    for name, ratio in found.items():
        tokens = len(pack.lengths) * min(pack.lengths) if name == "padded" else total
        rates = {"baseline": total / ratio.baseline, "candidate": tokens / ratio.candidate}
        cells.append(
            {"dtype": dtype, "threads": threads, "way": name, **ratio.to_dict(), "tokens_s": rates}
        )
        print(
            f"{dtype} {threads} threads, {name}: {rates['candidate']:.0f} tokens/s, verl's way "
            f"{rates['baseline']:.0f}: {rates['candidate'] / rates['baseline']:.2f} x "
            f"(noise {ratio.noise:.2f})",
            flush=True,
        )
    return cells


def log_probs(
    model: torch.nn.Module, pack: Pack, responses_only: bool, of_logits: Callable
) -> torch.Tensor:
    """Log-probs of a pack's tokens, or of its responses' alone."""
    keep = {"logits_to_keep": pack.read} if responses_only else {}
    output = model(input_ids=pack.ids, position_ids=pack.positions, use_cache=False, **keep)
    labels = pack.ids[0].roll(-1)
    return of_logits(output.logits[0], labels[pack.read] if responses_only else labels)


if __name__ == "__main__":
    main()
