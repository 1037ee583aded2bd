"""Trained parameters on disk: written whole, recognised, refused where they do not belong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rsp_rl.basics.errors import ConfigError, RunFolderError
from rsp_rl.basics.files import read_json
from rsp_rl.comparators.softcot import SoftCot
from rsp_rl.comparators.trained_file import FILE, load_trained, save_trained
from rsp_rl.comparators.ttsv import PREFIX, Ttsv
from rsp_rl.dials.options import RspOptions
from rsp_rl.models.weights import weights_digest

WIDTH = 128
RSP = RspOptions(length=3, position="prefix")


def describe(model: Path, **changes: object) -> dict[str, object]:
    how = {"method": "ttsv", "length": 3, "position": "prefix", "model": str(model)}
    return how | {"weights": weights_digest(model)} | changes


@pytest.fixture
def trained(model: Path, tmp_path: Path) -> Path:
    save_trained(tmp_path / "ttsv", {PREFIX: torch.randn(3, WIDTH)}, describe(model))
    return tmp_path / "ttsv"


def test_what_is_written_is_read(model: Path, tmp_path: Path) -> None:
    prefix, how = torch.randn(3, WIDTH), describe(model, entropy=[2.0, 1.5])
    file = save_trained(tmp_path / "a", {PREFIX: prefix}, how)
    found = load_trained(tmp_path / "a", "ttsv", (PREFIX,))
    assert torch.equal(found.tensors[PREFIX], prefix)
    assert found.how == how == read_json(tmp_path / "a" / "how.json")
    assert file == found.file
    assert {path.name for path in file.parent.iterdir()} == {FILE, "how.json"}
    other = save_trained(tmp_path / "b", {PREFIX: prefix + 1}, how)
    assert load_trained(other.parent, "ttsv", (PREFIX,)).digest != found.digest
    assert Ttsv(trained=str(tmp_path / "a")).check(model, RSP) == found.digest


@pytest.mark.parametrize("keep", [0, 7, 8, 200, 600, -1])
def test_a_file_that_was_cut_short(model: Path, trained: Path, keep: int) -> None:
    content = (trained / FILE).read_bytes()
    (trained / FILE).write_bytes(content[:keep])
    with pytest.raises(RunFolderError, match=r"soft_prompt\.safetensors is damaged"):
        Ttsv(trained=str(trained)).check(model, RSP)


def test_a_safetensors_file_of_something_else(model: Path, trained: Path) -> None:
    shutil.copy(next(model.glob("*.safetensors")), trained / FILE)
    with pytest.raises(RunFolderError, match="not of `rsp-rl train-comparator`"):
        Ttsv(trained=str(trained)).check(model, RSP)


def test_files_of_something_else(model: Path, assistant: Path, trained: Path, tmp_path: Path):
    with pytest.raises(RunFolderError, match=r"width 128, the embeddings of .* are 64 wide"):
        Ttsv(trained=str(trained)).check(assistant, RSP)
    with pytest.raises(RunFolderError, match=r"trained by ttsv, but comparator\.method=softcot"):
        SoftCot(trained=str(trained)).check(model, RSP)
    with pytest.raises(RunFolderError, match="missing; train it with `rsp-rl train-comparator tt"):
        Ttsv(trained=str(tmp_path / "gone")).check(model, RSP)
    how = describe(model, weights="0" * 16)
    save_trained(tmp_path / "other", {PREFIX: torch.randn(3, WIDTH)}, how)
    with pytest.raises(RunFolderError, match="has other weights"):
        Ttsv(trained=str(tmp_path / "other")).check(model, RSP)
    save_trained(tmp_path / "named", {"a": torch.randn(3, WIDTH)}, describe(model))
    with pytest.raises(RunFolderError, match="lacks 'prefix'"):
        Ttsv(trained=str(tmp_path / "named")).check(model, RSP)


@pytest.mark.parametrize(
    ("rsp", "message"),
    [
        (RspOptions(length=4, position="prefix"), r"rsp\.length=4, .* with 3; set rsp\.length=3"),
        (RspOptions(length=3), r"rsp\.position=suffix, .* with prefix; set rsp\.position=prefix"),
    ],
)
def test_other_positions(model: Path, trained: Path, rsp: RspOptions, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ttsv(trained=str(trained)).check(model, rsp)


def test_another_assistant(model: Path, assistant: Path, tmp_path: Path) -> None:
    tensors = {"weight": torch.randn(WIDTH, 64), "bias": torch.randn(WIDTH)}
    how = describe(model, method="softcot", assistant=str(assistant))
    save_trained(tmp_path / "s", tensors, how | {"assistant_weights": weights_digest(assistant)})
    SoftCot(trained=str(tmp_path / "s")).check(model, RSP)
    with pytest.raises(RunFolderError, match=r"other weights; name it with comparator\.assis"):
        SoftCot(trained=str(tmp_path / "s"), assistant=str(model)).check(model, RSP)
    with pytest.raises(ConfigError, match="SoftCoT's assistant model '/gone' cannot be used"):
        SoftCot(trained=str(tmp_path / "s"), assistant="/gone").check(model, RSP)
