"""mu_E and sigma_E of embedding tables as model folders hold them."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rsp_rl.draws import embedding_table as module
from rsp_rl.draws.embedding_stats import embedding_stats
from tests.properties import examples
from tests.tolerances import rounding

QWEN = "model.embed_tokens.weight"
# Of real checkpoints: Qwen2/3, Llama, Gemma and Mistral share the first.
TENSOR_NAMES = {
    "Qwen2, Qwen3, Llama, Gemma, Mistral": QWEN,
    "Gemma 3, Mistral 3 (multimodal wrapper)": "model.language_model.embed_tokens.weight",
    "older multimodal wrapper": "language_model.model.embed_tokens.weight",
    "bare decoder": "embed_tokens.weight",
    "GPT-2": "transformer.wte.weight",
    "Falcon, BLOOM": "transformer.word_embeddings.weight",
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def _table(rows: int = 331, width: int = 64, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    return (torch.randn(rows, width, generator=generator) * 0.02 + 0.003).to(dtype)


def _others(width: int = 64) -> dict[str, torch.Tensor]:
    """Tensors that must not be mistaken for the table: far from it in every statistic."""
    names = [
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.embed_positions.weight",
        "model.language_model.embed_tokens_per_layer.weight",
        "model.vision_tower.embeddings.patch_embedding.weight",
    ]
    return {name: torch.full((8, width), 100.0) for name in names}


def _exact(table: torch.Tensor) -> tuple[float, float]:
    """Mean and population standard deviation with exact sums."""
    values = table.double().flatten().tolist()
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _rounding(table: torch.Tensor) -> float:
    """Of float64 sums over at most a thousand chunks; their sizes are those of the entries."""
    return rounding(1000, float(table.abs().max()), torch.float64)


def _assert_equal_to_reference(folder: Path, table: torch.Tensor, name: str = QWEN) -> None:
    stats = embedding_stats(folder)
    mean, std = _exact(table)
    few = {"rel": 0, "abs": _rounding(table)}
    assert stats.mean == pytest.approx(mean, **few)
    assert stats.std == pytest.approx(std, **few)
    assert stats.mean == pytest.approx(table.double().mean().item(), **few)
    assert stats.std == pytest.approx(table.double().std(correction=0).item(), **few)
    assert (stats.vocab_size, stats.hidden_size) == tuple(table.shape)
    assert stats.tensor == name


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_raw(file: Path, header: object, data: bytes = b"") -> None:
    """A safetensors file by hand, whatever its header."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_single_file(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    table = _table(dtype=dtype)
    others = _others()
    if tied:
        del others["lm_head.weight"]
    save_file({QWEN: table, **others}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    _assert_equal_to_reference(tmp_path, table)


@pytest.mark.parametrize("name", TENSOR_NAMES.values(), ids=TENSOR_NAMES.keys())
def test_tensor_names(tmp_path: Path, name: str) -> None:
    table = _table()
    save_file({name: table, **_others()}, tmp_path / "model.safetensors")
    _assert_equal_to_reference(tmp_path, table, name)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("shard", [1, 2, 3])
def test_sharded(tmp_path: Path, dtype: torch.dtype, shard: int) -> None:
    table = _table(dtype=dtype)
    shards = [{f"model.layers.{n}.mlp.weight": torch.full((4, 4), 50.0)} for n in range(3)]
    shards[shard - 1][QWEN] = table
    weight_map = {}
    for number, tensors in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-00003.safetensors"
        save_file(tensors, tmp_path / file)
        weight_map |= dict.fromkeys(tensors, file)
    _write_index(tmp_path, weight_map)
    _assert_equal_to_reference(tmp_path, table)
    # Only the shard with the table is needed.
    for number in {1, 2, 3} - {shard}:
        (tmp_path / f"model-{number:05d}-of-00003.safetensors").unlink()
    _assert_equal_to_reference(tmp_path, table)


def test_of_several_tables_the_outermost_counts(tmp_path: Path) -> None:
    table = _table()
    deeper = {"model.audio.decoder.code.embed_tokens.weight": torch.full((8, 4), 9.0)}
    save_file({**deeper, QWEN: table}, tmp_path / "model.safetensors")
    _assert_equal_to_reference(tmp_path, table)


@given(
    rows=st.integers(1, 40),
    width=st.integers(1, 40),
    chunk=st.integers(1, 97),
    offset=st.sampled_from([0.0, 1e-3, 1.0, -1e4]),
)
@examples(40)
def test_chunks_of_any_size_merge_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: int, width: int, chunk: int, offset: float
) -> None:
    folder = tmp_path_factory.mktemp("model")
    table = (torch.randn(rows, width, generator=torch.Generator().manual_seed(0)) + offset).half()
    save_file({QWEN: table}, folder / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_ENTRIES", chunk)
        stats = embedding_stats(folder)
    mean, std = _exact(table)
    assert stats.mean == pytest.approx(mean, rel=0, abs=_rounding(table))
    assert stats.std == pytest.approx(std, rel=0, abs=_rounding(table))


def test_table_of_more_than_one_chunk(tmp_path: Path) -> None:
    """A real table's order of size, with statistics that drift from its first row to its last."""
    table = _table(rows=9000, width=128) + torch.linspace(0, 0.01, 9000)[:, None]
    assert table.numel() > module._CHUNK_ENTRIES
    save_file({"a": torch.zeros(3), QWEN: table}, tmp_path / "model.safetensors")
    _assert_equal_to_reference(tmp_path, table)


def test_constant_table_has_no_deviation(tmp_path: Path) -> None:
    save_file({QWEN: torch.full((50, 8), 0.25)}, tmp_path / "model.safetensors")
    stats = embedding_stats(str(tmp_path))
    assert (stats.mean, stats.std) == (0.25, 0.0)
    assert stats.to_dict() == {
        "mean": 0.25,
        "std": 0.0,
        "vocab_size": 50,
        "hidden_size": 8,
        "tensor": QWEN,
    }


_MEASURE = """
import resource, sys
from rsp_rl.draws.embedding_stats import embedding_stats
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stats = embedding_stats(sys.argv[1])
print(stats.mean, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_peak_memory_is_far_below_the_table(tmp_path: Path) -> None:
    vocab_size, width = 75_000, 1024
    size = vocab_size * width * 4
    header = {QWEN: {"dtype": "F32", "shape": [vocab_size, width], "data_offsets": [0, size]}}
    file = tmp_path / "model.safetensors"
    _write_raw(file, header)
    ones = np.ones(width, dtype="<f4").tobytes()
    with file.open("r+b") as stream:  # sparse: zeros but for the last row
        stream.seek(file.stat().st_size + size - len(ones))
        stream.write(ones)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    mean, kibibytes = done.stdout.split()
    assert float(mean) == pytest.approx(1 / vocab_size, rel=rounding(1000, dtype=torch.float64))
    assert int(kibibytes) < 64 * 1024


# One clear error each.


def _empty_folder(folder: Path) -> None:
    pass


def _missing_folder(folder: Path) -> None:
    folder.rmdir()


def _bin_only(folder: Path) -> None:
    torch.save({QWEN: _table()}, folder / "pytorch_model.bin")


def _sharded_bin_only(folder: Path) -> None:
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")


def _lora_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    save_file({"base_model.model.lora_A.weight": _table()}, folder / "adapter_model.safetensors")


def _renamed_lora_adapter(folder: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: _table()}, folder / "model.safetensors")


def _no_tensors(folder: Path) -> None:
    _write_raw(folder / "model.safetensors", {"__metadata__": {"format": "pt"}})


def _missing_shard(folder: Path) -> None:
    _write_index(folder, {QWEN: "model-00001-of-00002.safetensors"})


def _index_without_table(folder: Path) -> None:
    save_file({"model.norm.weight": torch.zeros(4)}, folder / "a.safetensors")
    _write_index(folder, {"model.norm.weight": "a.safetensors"})


def _index_names_the_wrong_shard(folder: Path) -> None:
    save_file({"model.norm.weight": torch.zeros(4)}, folder / "a.safetensors")
    _write_index(folder, {QWEN: "a.safetensors"})


def _garbage_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("<html>404</html>")


def _index_without_map(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")


def _truncated_data(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({QWEN: _table()}, file)
    file.write_bytes(file.read_bytes()[:-100])


def _truncated_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({QWEN: _table()}, file)
    file.write_bytes(file.read_bytes()[:40])


def _empty_file(folder: Path) -> None:
    (folder / "model.safetensors").touch()


def _random_bytes(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8)
    (folder / "model.safetensors").write_bytes(noise.tobytes())


def _lfs_pointer(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 99\n"
    (folder / "model.safetensors").write_text(pointer)


def _header_of_text(folder: Path) -> None:
    _write_raw(folder / "model.safetensors", b"this is not JSON", b"0" * 64)


def _header_of_bytes(folder: Path) -> None:
    _write_raw(folder / "model.safetensors", b"\xff\xfe\x80" * 9, b"0" * 64)


def _header_of_a_list(folder: Path) -> None:
    _write_raw(folder / "model.safetensors", [1, 2], b"0" * 64)


def _entry_without_offsets(folder: Path) -> None:
    _write_raw(folder / "model.safetensors", {QWEN: {"dtype": "F32", "shape": [2, 2]}}, b"0" * 16)


def _offsets_against_shape(folder: Path) -> None:
    header = {QWEN: {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 16]}}
    _write_raw(folder / "model.safetensors", header, b"0" * 64)


def _quantised(folder: Path) -> None:
    save_file({QWEN: torch.ones(4, 4, dtype=torch.int8)}, folder / "model.safetensors")


def _one_dimensional(folder: Path) -> None:
    save_file({QWEN: torch.ones(16)}, folder / "model.safetensors")


def _no_rows(folder: Path) -> None:
    save_file({QWEN: torch.ones(0, 16)}, folder / "model.safetensors")


def _holding(value: float, dtype: torch.dtype) -> object:
    def make(folder: Path) -> None:
        table = _table(dtype=dtype)
        table[200, 3] = value
        save_file({QWEN: table}, folder / "model.safetensors")

    return make


@pytest.mark.filterwarnings("error")  # numpy's warnings would bury the error
@pytest.mark.parametrize(
    ("make", "kind", "cause"),
    [
        (_empty_folder, FileNotFoundError, r"no model\.safetensors"),
        (_missing_folder, FileNotFoundError, "does not exist"),
        (_bin_only, FileNotFoundError, r"\.bin only"),
        (_sharded_bin_only, FileNotFoundError, r"\.bin only"),
        (_lora_adapter, ValueError, "LoRA adapter"),
        (_renamed_lora_adapter, ValueError, "no input-embedding table"),
        (_no_tensors, ValueError, "no input-embedding table"),
        (_missing_shard, FileNotFoundError, r"model-00001-of-00002\.safetensors .*missing"),
        (_index_without_table, ValueError, "no input-embedding table"),
        (_index_names_the_wrong_shard, ValueError, "does not hold"),
        (_garbage_index, ValueError, "is not an index"),
        (_index_without_map, ValueError, "is not an index"),
        (_truncated_data, ValueError, "ends inside"),
        (_truncated_header, ValueError, "not a whole safetensors"),
        (_empty_file, ValueError, "not a whole safetensors"),
        (_random_bytes, ValueError, "not a whole safetensors"),
        (_lfs_pointer, ValueError, "not a whole safetensors"),
        (_header_of_text, ValueError, "not a safetensors file"),
        (_header_of_bytes, ValueError, "not a safetensors file"),
        (_header_of_a_list, ValueError, "not a safetensors file"),
        (_entry_without_offsets, ValueError, "download it again"),
        (_offsets_against_shape, ValueError, "16 bytes"),
        (_quantised, ValueError, "I8"),
        (_one_dimensional, ValueError, r"\[16\]"),
        (_no_rows, ValueError, "is empty or"),
        (_holding(math.nan, torch.float32), ValueError, "NaN or infinity"),
        (_holding(math.nan, torch.bfloat16), ValueError, "NaN or infinity"),
        (_holding(math.inf, torch.float16), ValueError, "NaN or infinity"),
        (_holding(-math.inf, torch.float32), ValueError, "NaN or infinity"),
    ],
)
def test_unusable_folders(tmp_path: Path, make: object, kind: type, cause: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make(folder)
    with pytest.raises(kind, match=cause) as caught:
        embedding_stats(folder)
    assert caught.type is kind
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
