"""The embedding table of a model folder: where it lies, its rows, its digest, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rsp_rl.draws.embedding_stats import embedding_stats
from rsp_rl.draws.embedding_table import open_embedding_table
from tests.unit.draws.made_tables import (
    DIGEST,
    NAME,
    assert_equal_to_reference,
    random_table,
    write_model,
    write_raw,
)

# Of real checkpoints: Qwen2/3, Llama, Gemma and Mistral share the first.
TENSOR_NAMES = {
    "Qwen2, Qwen3, Llama, Gemma, Mistral": NAME,
    "Gemma 3, Mistral 3 (multimodal wrapper)": "model.language_model.embed_tokens.weight",
    "older multimodal wrapper": "language_model.model.embed_tokens.weight",
    "bare decoder": "embed_tokens.weight",
    "GPT-2": "transformer.wte.weight",
    "Falcon, BLOOM": "transformer.word_embeddings.weight",
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


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


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


# Where it lies.


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_single_file(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    table = random_table(dtype=dtype)
    others = _others()
    if tied:
        del others["lm_head.weight"]
    save_file({NAME: table, **others}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_equal_to_reference(tmp_path, table)


@pytest.mark.parametrize("name", TENSOR_NAMES.values(), ids=TENSOR_NAMES.keys())
def test_tensor_names(tmp_path: Path, name: str) -> None:
    table = random_table()
    save_file({name: table, **_others()}, tmp_path / "model.safetensors")
    assert_equal_to_reference(tmp_path, table, name)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
@pytest.mark.parametrize("shard", [1, 2, 3])
def test_sharded(tmp_path: Path, dtype: torch.dtype, shard: int) -> None:
    table = random_table(dtype=dtype)
    shards = [{f"model.layers.{n}.mlp.weight": torch.full((4, 4), 50.0)} for n in range(3)]
    shards[shard - 1][NAME] = table
    weight_map = {}
    for number, tensors in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-00003.safetensors"
        save_file(tensors, tmp_path / file)
        weight_map |= dict.fromkeys(tensors, file)
    _write_index(tmp_path, weight_map)
    assert_equal_to_reference(tmp_path, table)
    # Only the shard with the table is needed.
    for number in {1, 2, 3} - {shard}:
        (tmp_path / f"model-{number:05d}-of-00003.safetensors").unlink()
    assert_equal_to_reference(tmp_path, table)


def test_of_several_tables_the_outermost_counts(tmp_path: Path) -> None:
    table = random_table()
    deeper = {"model.audio.decoder.code.embed_tokens.weight": torch.full((8, 4), 9.0)}
    save_file({**deeper, NAME: table}, tmp_path / "model.safetensors")
    assert_equal_to_reference(tmp_path, table)


# Its rows and its digest.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_any_stored_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = write_model(tmp_path, dtype)
    rows = open_embedding_table(tmp_path).rows(np.array([40, 0, 40]))
    assert torch.equal(torch.from_numpy(rows), stored[[40, 0, 40]].float())


def test_rows_beyond_the_end_of_the_file_are_an_error(tmp_path: Path) -> None:
    write_model(tmp_path)
    opened = open_embedding_table(tmp_path)
    opened.file.write_bytes(opened.file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends inside its embedding table"):
        opened.rows(np.array([opened.vocab_size - 1]))


def test_the_digest_is_frozen(tmp_path: Path) -> None:
    """Checkpoints hold it."""
    write_model(tmp_path)
    assert open_embedding_table(tmp_path).digest() == f"{DIGEST:016x}"


def test_the_digest_tells_tables_apart(tmp_path: Path) -> None:
    tables = {
        "same": write_model(tmp_path / "a"),
        "other": write_model(tmp_path / "b", seed=1),
        "dtype": write_model(tmp_path / "c", torch.float16),
    }
    again = tmp_path / "again"
    again.mkdir()
    save_file({NAME: tables["same"]}, again / "model.safetensors")  # elsewhere in its file
    digests = [open_embedding_table(tmp_path / name).digest() for name in ("a", "b", "c")]
    assert len(set(digests)) == 3
    assert open_embedding_table(again).digest() == digests[0]
    # One entry in the last place.
    changed = tables["same"].clone()
    changed.view(torch.int16)[-1, -1] += 1
    save_file({NAME: changed}, again / "model.safetensors")
    assert open_embedding_table(again).digest() != digests[0]


# One clear error each.


def _empty_folder(folder: Path) -> None:
    pass


def _missing_folder(folder: Path) -> None:
    folder.rmdir()


def _bin_only(folder: Path) -> None:
    torch.save({NAME: random_table()}, folder / "pytorch_model.bin")


def _sharded_bin_only(folder: Path) -> None:
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"x")


def _lora_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    save_file(
        {"base_model.model.lora_A.weight": random_table()}, folder / "adapter_model.safetensors"
    )


def _renamed_lora_adapter(folder: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: random_table()}, folder / "model.safetensors")


def _no_tensors(folder: Path) -> None:
    write_raw(folder / "model.safetensors", {"__metadata__": {"format": "pt"}})


def _missing_shard(folder: Path) -> None:
    _write_index(folder, {NAME: "model-00001-of-00002.safetensors"})


def _index_without_table(folder: Path) -> None:
    save_file({"model.norm.weight": torch.zeros(4)}, folder / "a.safetensors")
    _write_index(folder, {"model.norm.weight": "a.safetensors"})


def _index_names_the_wrong_shard(folder: Path) -> None:
    save_file({"model.norm.weight": torch.zeros(4)}, folder / "a.safetensors")
    _write_index(folder, {NAME: "a.safetensors"})


def _garbage_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("<html>404</html>")


def _index_without_map(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")


def _truncated_data(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({NAME: random_table()}, file)
    file.write_bytes(file.read_bytes()[:-100])


def _truncated_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({NAME: random_table()}, file)
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
    write_raw(folder / "model.safetensors", b"this is not JSON", b"0" * 64)


def _header_of_bytes(folder: Path) -> None:
    write_raw(folder / "model.safetensors", b"\xff\xfe\x80" * 9, b"0" * 64)


def _header_of_a_list(folder: Path) -> None:
    write_raw(folder / "model.safetensors", [1, 2], b"0" * 64)


def _entry_without_offsets(folder: Path) -> None:
    write_raw(folder / "model.safetensors", {NAME: {"dtype": "F32", "shape": [2, 2]}}, b"0" * 16)


def _offsets_against_shape(folder: Path) -> None:
    header = {NAME: {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 16]}}
    write_raw(folder / "model.safetensors", header, b"0" * 64)


def _quantised(folder: Path) -> None:
    save_file({NAME: torch.ones(4, 4, dtype=torch.int8)}, folder / "model.safetensors")


def _one_dimensional(folder: Path) -> None:
    save_file({NAME: torch.ones(16)}, folder / "model.safetensors")


def _no_rows(folder: Path) -> None:
    save_file({NAME: torch.ones(0, 16)}, folder / "model.safetensors")


def _holding(value: float, dtype: torch.dtype) -> object:
    def make(folder: Path) -> None:
        table = random_table(dtype=dtype)
        table[200, 3] = value
        save_file({NAME: table}, folder / "model.safetensors")

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
