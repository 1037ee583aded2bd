"""The command-line options of every command that runs an engine."""

from __future__ import annotations

import argparse
from dataclasses import fields

from rsp_rl.inference.requests import KINDS, EngineOptions


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each of `EngineOptions`."""
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine", dest="kind", choices=KINDS, default="vllm", help="huggingface is the reference"
    )
    engine.add_argument("--dtype", default="auto", help="bfloat16 on a GPU, float32 without one")
    engine.add_argument("--tensor-parallel", type=int, default=1, help="GPUs an engine")
    engine.add_argument(
        "--data-parallel", type=int, default=1, help="engines; more than one run on Ray"
    )
    engine.add_argument("--ray-address", help="Ray cluster for several engines (default: here)")
    engine.add_argument("--max-num-seqs", type=int, default=256, help="samples at once an engine")
    engine.add_argument("--max-model-len", type=int, help="default: the model's own")
    engine.add_argument("--gpu-memory-utilization", type=float, default=0.9)


def engine_options(args: argparse.Namespace) -> EngineOptions:
    """What `add_engine_options` made of a command line.

    Raises:
        ConfigError: On a bad value.
    """
    return EngineOptions(
        **{field.name: getattr(args, field.name) for field in fields(EngineOptions)}
    )
