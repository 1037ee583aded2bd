"""What a packed micro-batch costs by its length, where there is no flash attention.

    python scripts/bench/packed_attention.py

Packed as verl's FSDP engine packs it: one row of several sequences, told apart by their position
ids; torch's attention then computes the whole square and masks most of it. Forward and backward of
the tiny model on one core, in turn, and attention's share of it from torch's profiler. 803 and 912
are the lengths of `step_time.py`'s micro-batches without and with soft prompts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from paired import compare, core_seconds, write_report
from torch.profiler import profile
from transformers import AutoModelForCausalLM

from rsp_rl.tiny import make_tiny_model


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("packed_attention.json"))
    parser.add_argument("--baseline", type=int, default=803, help="length to compare with")
    parser.add_argument("--lengths", type=int, nargs="+", default=[200, 400, 912])
    parser.add_argument("--sequence", type=int, default=38, help="tokens of one sequence")
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = make_tiny_model(Path(folder) / "model", steps=0)
        model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa")

    def cost(length: int) -> Callable[[], float]:
        return lambda: core_seconds(lambda: update(model, length, args.sequence))

    costs = {str(length): cost(length) for length in args.lengths}
    found = compare(cost(args.baseline), costs, args.rounds)
    cells: list[dict[str, Any]] = []
    for length in args.lengths:
        ratio = found[str(length)]
        floor = length / args.baseline
        share = attention_share(model, length, args.sequence)
        cells.append({"length": length, **ratio.to_dict(), "floor": floor, "attention": share})
        each = [1e6 * ratio.baseline / args.baseline, 1e6 * ratio.candidate / length]
        print(
            f"{length:>5} tokens over {args.baseline}: {ratio.value:.3f}, floor {floor:.3f}, "
            f"above it {ratio.value / floor:.3f} (noise {ratio.noise:.3f}); "
            f"{each[1]:.0f} us a token against {each[0]:.0f}; attention {share:.0%}"
        )
    results = {"baseline": args.baseline, "cells": cells}
    write_report(args.output, "packed_attention", results)


def update(model: torch.nn.Module, length: int, sequence: int) -> None:
    """Log-probs of one packed row and their gradient."""
    input_ids = torch.arange(length)[None] % model.config.vocab_size
    position_ids = torch.arange(length)[None] % sequence
    model.zero_grad(set_to_none=True)
    logits = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
    torch.log_softmax(logits, -1).gather(-1, input_ids[..., None]).mean().backward()


def attention_share(model: torch.nn.Module, length: int, sequence: int) -> float:
    """Of the operators' own time."""
    with profile() as profiler:
        update(model, length, sequence)
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    attention = sum(time for name, time in spent.items() if "dot_product" in name)
    return attention / sum(spent.values())


if __name__ == "__main__":
    main()
