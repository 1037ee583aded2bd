"""Which models are the same, and how they are stored."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.weights import check_whole_files, stored_dtype, values_digest, weights_digest


def make(folder: Path, weights: dict[str, torch.Tensor], files: int = 1) -> Path:
    folder.mkdir()
    names = sorted(weights)
    for number in range(files):
        part = {name: weights[name] for name in names[number::files]}
        save_file(part, folder / f"model-{number}.safetensors")
    return folder


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"embed": (40, 8), "layer": (8, 8), "norm": (8,), "scale": ()}
    return {
        name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()
    }


def test_one_model_stored_in_many_ways_is_one(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    ways = [
        make(tmp_path / "a", weights),
        make(tmp_path / "float32", {name: value.float() for name, value in weights.items()}),
        make(tmp_path / "files", weights, files=3),
        make(tmp_path / "names", {f"model.{name}": value for name, value in weights.items()}),
        make(tmp_path / "tied", weights | {"head": weights["embed"].clone()}),
    ]
    assert len({values_digest(way) for way in ways}) == 1
    assert len({weights_digest(way) for way in ways}) == len(ways)


@pytest.mark.parametrize("name", ["embed", "layer", "norm", "scale"])
def test_a_model_whose_weight_was_trained_is_another(
    name: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    before = values_digest(make(tmp_path / "a", weights))
    after = values_digest(make(tmp_path / "b", weights | {name: weights[name] * 1.01}))
    assert before != after


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(
    number: float, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A model that diverged answers all the same, and is 0% right."""
    weights["norm"][3] = number
    with pytest.raises(ConfigError, match=r"model-0\.safetensors: norm holds .*not finite"):
        values_digest(make(tmp_path / "a", weights))


def test_the_dtype_on_disk(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert stored_dtype(make(tmp_path / "a", weights)) == "bfloat16"
    mixed = weights | {"norm": weights["norm"].float()}
    assert stored_dtype(make(tmp_path / "b", mixed, files=2)) == "bfloat16, float32"


def test_weights_that_were_cut_off_are_named(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """As an interrupted download or copy leaves them."""
    model = make(tmp_path / "a", weights, files=2)
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"embed": "model-0.safetensors"}}))
    check_whole_files(model)
    last = model / "model-1.safetensors"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(ConfigError, match=f"{last} has {len(whole) - 1} bytes of {len(whole)}"):
        check_whole_files(model)
    last.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ConfigError, match=f"{last} is not a whole safetensors file"):
        check_whole_files(model)
    last.write_bytes(whole)
    for damaged in ("{", "[]", "{}", json.dumps({"weight_map": 1})):
        index.write_text(damaged)
        with pytest.raises(ConfigError, match=f"{index} is no index"):
            check_whole_files(model)
    index.write_text(json.dumps({"weight_map": {"embed": "other.safetensors"}}))
    with pytest.raises(ConfigError, match=r"index.json names other.safetensors .*is missing"):
        check_whole_files(model)
