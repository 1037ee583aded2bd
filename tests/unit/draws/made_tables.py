"""Embedding tables as model folders hold them, made up, and their statistics with exact sums."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rsp_rl.draws.embedding_stats import embedding_stats
from tests.tolerances import rounding

#: Of Qwen2 and 3, Llama, Gemma and Mistral.
NAME = "model.embed_tokens.weight"

#: Of what `write_model` writes.
ROWS, WIDTH = 41, 24
DIGEST = 0x905066B0C6F8B70A


def random_table(
    rows: int = 331, width: int = 64, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    return (torch.randn(rows, width, generator=generator) * 0.02 + 0.003).to(dtype)


def exact_stats(table: torch.Tensor) -> tuple[float, float]:
    """Mean and population standard deviation with exact sums."""
    values = table.double().flatten().tolist()
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def rounding_of(table: torch.Tensor) -> float:
    """Of float64 sums over at most a thousand chunks; their sizes are those of the entries."""
    return rounding(1000, float(table.abs().max()), torch.float64)


def assert_equal_to_reference(folder: Path, table: torch.Tensor, name: str = NAME) -> None:
    stats = embedding_stats(folder)
    mean, std = exact_stats(table)
    few = {"rel": 0, "abs": rounding_of(table)}
    assert stats.mean == pytest.approx(mean, **few)
    assert stats.std == pytest.approx(std, **few)
    assert stats.mean == pytest.approx(table.double().mean().item(), **few)
    assert stats.std == pytest.approx(table.double().std(correction=0).item(), **few)
    assert (stats.vocab_size, stats.hidden_size) == tuple(table.shape)
    assert stats.tensor == name


def write_raw(file: Path, header: object, data: bytes = b"") -> None:
    """A safetensors file by hand, whatever its header."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def write_model(folder: Path, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> torch.Tensor:
    """A model folder as far as laws look at it, and its table."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = torch.arange(ROWS)[:, None], torch.arange(WIDTH)
    table = ((7 * row + 3 * column + seed) % 251).to(dtype)  # whole numbers that bf16 can hold
    save_file({"a.bias": torch.ones(3), NAME: table}, folder / "model.safetensors")
    return table
