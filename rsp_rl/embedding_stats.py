"""mu_E and sigma_E of a pretrained input-embedding table, streamed from its safetensors file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

#: Suffixes of the input-embedding tensor's name. `embed_tokens` covers Qwen2/3, Llama, Gemma and
#: Mistral, bare (`model.`) and inside a multimodal wrapper (`model.language_model.`).
EMBEDDING_SUFFIXES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")

_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_CHUNK_ENTRIES = 1 << 20


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
    (`safetensors.safe_open` maps the file, and every page it touches counts as resident.)

    Args:
        model_folder: Hugging Face model folder with `model.safetensors`, or shards and
            `model.safetensors.index.json`; bf16, fp16, fp32 or fp64; tied or untied.

    Raises:
        FileNotFoundError: If the folder, or its safetensors, or a shard is missing.
        ValueError: If the folder holds no input-embedding table, or one in another dtype.
    """
    file, name = _find_embedding(Path(model_folder))
    header, data_start = _read_header(file)
    if name not in header:
        raise ValueError(f"{file} does not hold {name}, though the index says so; re-download it")
    entry = header[name]
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{file} describes {name} as {entry!r}; download it again")
    if entry["dtype"] not in _NUMPY_DTYPES or len(entry["shape"]) != 2:
        raise ValueError(
            f"{name} in {file} is {entry['dtype']} {entry['shape']}; "
            f"the statistics need a [V, d] table in one of {sorted(_NUMPY_DTYPES)}"
        )
    vocab_size, hidden_size = entry["shape"]
    entries, (begin, end) = vocab_size * hidden_size, entry["data_offsets"]
    if end - begin != entries * np.dtype(_NUMPY_DTYPES[entry["dtype"]]).itemsize:
        raise ValueError(
            f"{file} gives {name} {end - begin} bytes, too few or too many for "
            f"{entry['dtype']} {entry['shape']}; download it again"
        )
    mean, std = _mean_and_std(_chunks(file, data_start + begin, entries, entry))
    if not math.isfinite(mean) or not math.isfinite(std):
        raise ValueError(f"{name} in {file} is empty or holds NaN or infinity")
    return EmbeddingStats(mean, std, vocab_size, hidden_size, name)


def _find_embedding(folder: Path) -> tuple[Path, str]:
    """The safetensors file and tensor name of the input-embedding table."""
    if not folder.is_dir():
        raise FileNotFoundError(f"model folder {folder} does not exist; check the model path")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = _read_index(index)
    elif (single := folder / "model.safetensors").is_file():
        names = dict.fromkeys(_read_header(single)[0], single.name)
    elif (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds a LoRA adapter, which has no input-embedding table; "
            "RSP needs the base model's: give the base model as the model path"
        )
    elif list(folder.glob("*.bin")):
        raise FileNotFoundError(
            f"{folder} holds its weights as .bin only; convert it to safetensors "
            "(load it with transformers and save_pretrained it)"
        )
    else:
        raise FileNotFoundError(
            f"{folder} holds no model.safetensors and no model.safetensors.index.json; "
            "is it a Hugging Face model folder?"
        )
    candidates = [name for name in names if name.endswith(EMBEDDING_SUFFIXES)]
    # A multimodal checkpoint may carry further tables (audio codes, drafters) deeper in its tree.
    candidates.sort(key=lambda name: (name.count("."), name))
    if not candidates:
        raise ValueError(
            f"{folder} holds no input-embedding table (a tensor named *{EMBEDDING_SUFFIXES}); "
            "is it a LoRA adapter or a partial checkpoint? RSP needs the base model's table"
        )
    file = folder / names[candidates[0]]
    if not file.is_file():
        raise FileNotFoundError(f"shard {file} is named in {index.name} but missing; download it")
    return file, candidates[0]


def _read_index(index: Path) -> dict[str, str]:
    """File name by tensor name."""
    try:
        return dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is not an index of safetensors; download it again") from error


def _read_header(file: Path) -> tuple[dict[str, dict], int]:
    """A safetensors file's header and the byte at which its data starts."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size <= file.stat().st_size - 8:
            raise ValueError(f"{file} is not a whole safetensors file; download it again")
        try:
            header = dict(json.loads(stream.read(size)))
        except (ValueError, TypeError) as error:  # UnicodeDecodeError is a ValueError too
            raise ValueError(f"{file} is not a safetensors file; download it again") from error
    header.pop("__metadata__", None)
    return header, 8 + size


def _chunks(file: Path, start: int, entries: int, entry: dict) -> Iterator[np.ndarray]:
    """The table's entries in order, as float64 chunks."""
    dtype = np.dtype(_NUMPY_DTYPES[entry["dtype"]])
    for first in range(0, entries, _CHUNK_ENTRIES):
        count = min(_CHUNK_ENTRIES, entries - first)
        raw = np.fromfile(file, dtype, count, offset=start + first * dtype.itemsize)
        if raw.size < count:
            raise ValueError(f"{file} ends inside its embedding table; download it again")
        if entry["dtype"] == "BF16":  # bfloat16 is the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        yield raw.astype(np.float64)


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
