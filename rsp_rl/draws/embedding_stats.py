"""mu_E and sigma_E of a pretrained input-embedding table, streamed from its safetensors file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rsp_rl.draws.embedding_table import open_embedding_table


@dataclass(frozen=True)
class EmbeddingStats:
    """Entrywise statistics of the pretrained input-embedding table W_E in R^{V x d} (Eq. 1).

    Attributes:
        mean: mu_E, over all V*d entries, float64.
        std: sigma_E, over all V*d entries (population standard deviation), float64.
        vocab_size: V, rows of the stored table (padding rows of the checkpoint included).
        hidden_size: d.
        tensor: Name of the tensor that was read.
    """

    mean: float
    std: float
    vocab_size: int
    hidden_size: int
    tensor: str

    def to_dict(self) -> dict[str, float | int | str]:
        """Plain types, for JSON."""
        return asdict(self)


def embedding_stats(model_folder: str | Path) -> EmbeddingStats:
    """Mean and standard deviation of a model's input-embedding table.

    Reads that one tensor only, a few MiB at a time: peak memory does not grow with the table.

    Args:
        model_folder: Hugging Face model folder with `model.safetensors`, or shards and
            `model.safetensors.index.json`; bf16, fp16, fp32 or fp64; tied or untied.

    Raises:
        FileNotFoundError: If the folder, or its safetensors, or a shard is missing.
        ValueError: If the folder holds no input-embedding table, or one in another dtype.
    """
    table = open_embedding_table(model_folder)
    mean, std = _mean_and_std(table.chunks())
    if not math.isfinite(mean) or not math.isfinite(std):
        raise ValueError(f"{table.tensor} in {table.file} is empty or holds NaN or infinity")
    return EmbeddingStats(mean, std, table.vocab_size, table.hidden_size, table.tensor)


def _mean_and_std(chunks: Iterator[np.ndarray]) -> tuple[float, float]:
    """Mean and population standard deviation, merged chunk by chunk (Chan et al. 1979).

    NaN for an empty table, and for one that holds NaN or infinity.
    """
    count, mean, squares = 0, 0.0, 0.0
    for chunk in chunks:
        chunk_mean = float(chunk.mean())
        if not math.isfinite(chunk_mean):
            return math.nan, math.nan
        chunk_squares = float(np.square(chunk - chunk_mean).sum())
        total, delta = count + chunk.size, chunk_mean - mean
        squares += chunk_squares + delta * delta * count * chunk.size / total
        mean += delta * chunk.size / total
        count = total
    return (mean, math.sqrt(squares / count)) if count else (math.nan, math.nan)
