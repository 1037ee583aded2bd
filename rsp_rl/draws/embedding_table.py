"""The pretrained input-embedding table on disk: streamed, sampled row by row, and recognised.

Read from its safetensors file, never loaded whole. (`safetensors.safe_open` maps the file, and
every page it touches counts as resident.)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from rsp_rl.basics.errors import EmbeddingTableError

#: Suffixes of the input-embedding tensor's name. `embed_tokens` covers Qwen2/3, Llama, Gemma and
#: Mistral, bare (`model.`) and inside a multimodal wrapper (`model.language_model.`).
EMBEDDING_SUFFIXES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")

#: Names the folder of the run's pretrained model to all of its processes, for laws that draw from
#: the table itself: their records carry the table's digest, a path does not fit into them.
FOLDER_VARIABLE = "RSP_RL_PRETRAINED_MODEL"

_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_CHUNK_ENTRIES = 1 << 20


@dataclass(frozen=True)
class EmbeddingTable:
    """Where a pretrained input-embedding table W_E in R^{V x d} lies.

    Attributes:
        file: The safetensors file.
        tensor: Its name there.
        dtype: Its dtype, as safetensors names it.
        vocab_size: V, rows of the stored table (padding rows of the checkpoint included).
        hidden_size: d.
        start: Byte of the file at which its data starts.
    """

    file: Path
    tensor: str
    dtype: str
    vocab_size: int
    hidden_size: int
    start: int

    def chunks(self) -> Iterator[np.ndarray]:
        """All entries in order, as flat float64 chunks of a few MiB."""
        for raw in self._raw_chunks():
            yield self._decode(raw).astype(np.float64)

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """Some rows, float32 [K, d]; exact for all stored dtypes but float64.

        Raises:
            ValueError: If the file ends before one of them.
        """
        # Read, not mapped: to map a file takes longer than to read a soft prompt's rows from it.
        raw = np.empty((len(ids), self.hidden_size), self._numpy_dtype)
        with self.file.open("rb", buffering=0) as stream:
            for row, number in zip(raw, ids.tolist(), strict=True):
                stream.seek(self.start + number * row.nbytes)
                if stream.readinto(row) < row.nbytes:
                    raise self._cut_off()
        return self._decode(raw).astype(np.float32, copy=False)

    def digest(self) -> str:
        """BLAKE2b of dtype, shape and bytes, 16 hexadecimal digits."""
        hasher = hashlib.blake2b(digest_size=8)
        hasher.update(f"{self.dtype} {self.vocab_size} {self.hidden_size}\n".encode())
        for raw in self._raw_chunks():
            hasher.update(raw)
        return hasher.hexdigest()

    @property
    def _numpy_dtype(self) -> np.dtype:
        return np.dtype(_NUMPY_DTYPES[self.dtype])

    def _raw_chunks(self) -> Iterator[np.ndarray]:
        entries = self.vocab_size * self.hidden_size
        for first in range(0, entries, _CHUNK_ENTRIES):
            count = min(_CHUNK_ENTRIES, entries - first)
            offset = self.start + first * self._numpy_dtype.itemsize
            raw = np.fromfile(self.file, self._numpy_dtype, count, offset=offset)
            if raw.size < count:
                raise self._cut_off()
            yield raw

    def _cut_off(self) -> ValueError:
        return ValueError(f"{self.file} ends inside its embedding table; download it again")

    def _decode(self, raw: np.ndarray) -> np.ndarray:
        if self.dtype == "BF16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return raw


def open_embedding_table(model_folder: str | Path) -> EmbeddingTable:
    """Find a model's input-embedding table.

    Args:
        model_folder: Hugging Face model folder with `model.safetensors`, or shards and
            `model.safetensors.index.json`; bf16, fp16, fp32 or fp64; tied or untied.

    Raises:
        FileNotFoundError: If the folder, or its safetensors, or a shard is missing.
        ValueError: If the folder holds no input-embedding table, or one in another dtype.
    """
    file, name = _find_embedding(Path(model_folder))
    header, data_start = read_header(file)
    if name not in header:
        raise ValueError(f"{file} does not hold {name}, though the index says so; re-download it")
    entry = header[name]
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{file} describes {name} as {entry!r}; download it again")
    if entry["dtype"] not in _NUMPY_DTYPES or len(entry["shape"]) != 2:
        raise ValueError(
            f"{name} in {file} is {entry['dtype']} {entry['shape']}; "
            f"RSP needs a [V, d] table in one of {sorted(_NUMPY_DTYPES)}"
        )
    vocab_size, hidden_size = entry["shape"]
    begin, end = entry["data_offsets"]
    if end - begin != vocab_size * hidden_size * np.dtype(_NUMPY_DTYPES[entry["dtype"]]).itemsize:
        raise ValueError(
            f"{file} gives {name} {end - begin} bytes, too few or too many for "
            f"{entry['dtype']} {entry['shape']}; download it again"
        )
    return EmbeddingTable(file, name, entry["dtype"], vocab_size, hidden_size, data_start + begin)


def pretrained_table(digest: str) -> EmbeddingTable:
    """The run's pretrained table, in any of its processes; found and recognised once a process.

    Raises:
        EmbeddingTableError: If it is not known where it is, if it is gone, or if it is another one.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise EmbeddingTableError(
            f"soft prompts are rows of the pretrained embedding table, but {FOLDER_VARIABLE} does "
            "not say where it is; start training through `rsp-rl train`, which sets it"
        )
    return _recognised_once(folder, digest)


def recognised_table(folder: str, digest: str) -> EmbeddingTable:
    """A model's table, if it has this digest.

    Raises:
        EmbeddingTableError: If it is gone or another one.
    """
    try:
        table = open_embedding_table(folder)
        found = table.digest()
    except (OSError, ValueError) as error:
        raise EmbeddingTableError(
            f"the pretrained embedding table that soft prompts are rows of is gone: {error}; put "
            "the model back, or name a copy of it with rsp.table=FOLDER"
        ) from error
    if found != digest:
        raise EmbeddingTableError(
            f"the embedding table in {folder} (digest {found}) is not the pretrained one that this "
            f"run's soft prompts are rows of ({digest}): another model, or trained since; name a "
            "folder of the pretrained model with rsp.table=FOLDER"
        )
    return table


#: Hashing a table of a gigabyte takes a second or two: not once a draw.
_recognised_once = lru_cache(maxsize=2)(recognised_table)


def _find_embedding(folder: Path) -> tuple[Path, str]:
    """The safetensors file and tensor name of the input-embedding table."""
    if not folder.is_dir():
        raise FileNotFoundError(f"model folder {folder} does not exist; check the model path")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = _read_index(index)
    elif (single := folder / "model.safetensors").is_file():
        names = dict.fromkeys(read_header(single)[0], single.name)
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


def read_header(file: Path) -> tuple[dict[str, dict], int]:
    """A safetensors file's header and the byte at which its data starts.

    Raises:
        ValueError: If it is none, or cut short.
    """
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
