"""What a packed micro-batch costs by its length, where there is no flash attention.

    python scripts/bench/packed_attention.py --lengths 200 400 803 912

Packed as verl's FSDP engine packs it: one row of several sequences, told apart by their position
ids; torch's attention then computes the whole square and masks most of it. Forward and backward on
one core, in turn, and attention's share of it from torch's profiler. 803 and 912 are the lengths of
`step_time.py`'s micro-batches without and with soft prompts at 1,024 tokens at most.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from paired import core_seconds, write_report
from random_model import save_random_model
from torch.profiler import profile
from transformers import AutoModelForCausalLM


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("packed_attention.json"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[200, 400, 803, 912])
    parser.add_argument("--sequence", type=int, default=38, help="tokens of one sequence")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder), args.hidden_size, args.layers)
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    costs: dict[int, list[float]] = {length: [] for length in args.lengths}
    for number in range(args.rounds + 1):
        for length, taken in costs.items():
            cost = core_seconds(lambda length=length: update(model, length, args.sequence))
            if number:  # the first round warms up
                taken.append(cost)
    cells: list[dict[str, Any]] = []
    for length, taken in costs.items():
        cost = statistics.median(taken)
        share = attention_share(model, length, args.sequence)
        cells.append(
            {"length": length, "seconds": cost, "us_a_token": 1e6 * cost / length,
             "attention": share}
        )  # fmt: skip
        print(
            f"{length:>6} tokens {1e3 * cost:>8.1f} ms {1e6 * cost / length:>7.1f} us a token, "
            f"attention {share:.0%}"
        )
    write_report(args.output, "packed_attention", {"cells": cells})


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
