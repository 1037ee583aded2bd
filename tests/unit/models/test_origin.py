"""Where a base model came from: what is on record, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsp_rl.basics.files import write_json
from rsp_rl.models.origin import Origin, origin_of
from rsp_rl.models.small import SOURCE_NAME


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, as a download leaves it."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(folder), raising=False)
    model = folder / "models--Qwen--Tiny"
    snapshot = model / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("c0ffee")
    (snapshot / "config.json").write_text("{}")
    (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    return folder


def test_a_model_of_the_hub_that_was_downloaded(cache: Path) -> None:
    said = "Qwen/Tiny of the Hugging Face hub"
    assert origin_of("Qwen/Tiny") == Origin(said, "Qwen/Tiny", "apache-2.0")


def test_a_name_that_may_be_a_folder_is_no_model_of_the_hub(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was started elsewhere names its folders from there."""
    monkeypatch.chdir(tmp_path)  # a recipe leaves runs/tiny_model in the checkout
    for path in ("runs/tiny_model", "/gone/tiny_model", "~/gone/tiny_model"):
        origin = origin_of(path)
        assert (origin.hub, origin.licence) == (None, None)
        assert origin.said.startswith("tiny_model: whether that was a folder")


@pytest.mark.parametrize(
    ("source", "said", "hub"),
    [
        (None, "a local folder, base: where it is from is not on record", None),
        (
            {"from": "hub: Qwen/Tiny@c0ffee", "name": "x", "weights": "the original's"},
            "Qwen/Tiny@c0ffee of the Hugging Face hub",
            "Qwen/Tiny",
        ),
        (
            {"from": "package: p==1", "name": "smollm2-135m", "weights": "rounded"},
            "HuggingFaceTB/SmolLM2-135M-Instruct, its weights rounded (from the package p==1)",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        (
            {"from": "/home/me/a.gguf", "name": "smollm2-135m", "weights": "rounded"},
            "HuggingFaceTB/SmolLM2-135M-Instruct, its weights rounded (from a GGUF file)",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        ({"from": "package: p==1", "name": "x"}, "x: where it is from is not on record", None),
    ],
)
def test_a_folder(tmp_path: Path, source: dict | None, said: str, hub: str | None) -> None:
    """Of a file its path is not told: it is this machine's."""
    folder = tmp_path / "base"
    folder.mkdir()
    if source:
        write_json(folder / SOURCE_NAME, source)
    assert origin_of(str(folder)) == Origin(said, hub)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: ''\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("# mit\n", None),
    ],
)
def test_a_licence_is_what_the_models_own_card_names(
    tmp_path: Path, card: str, licence: str | None
) -> None:
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "LICENSE").write_text("MIT")
    assert origin_of(str(tmp_path)).licence == licence
