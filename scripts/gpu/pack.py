"""Packs what a bare GPU machine lacks to run rsp_rl, in parts that can be carried there.

    scripts/gpu/pack.sh --list               # what would be packed, and what not and why
    scripts/gpu/pack.sh                      # .gpu_kit/parts: kit.01, kit.02, ..., unpack.sh
    scripts/gpu/pack.sh --no-real-model      # with the tiny model alone

Nothing of the machine itself is needed here, not even a GPU: `there.txt` is its list of packages.
Exit status 1 if a need is unmet that `omitted.py` gives no reason for.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

from gpu import needs, omitted, parts
from gpu.kit import REAL_MODEL, fill, say

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / ".gpu_kit")
    parser.add_argument("--list", action="store_true", help="say what would be packed, and end")
    parser.add_argument("--part-mib", type=int, default=56, help="of a part, at most")
    parser.add_argument(
        "--model",
        default=REAL_MODEL,
        help="the real model: a folder, or a name of Hugging Face's hub (default: SmolLM2, 4 bits)",
    )
    parser.add_argument(
        "--no-real-model",
        dest="model",
        action="store_const",
        const=None,
        help="the tiny model alone",
    )
    args = parser.parse_args()

    work = args.output.resolve() / "work"
    work.mkdir(parents=True, exist_ok=True)
    uv = needs.find_uv(work)
    there = needs.versions((HERE / "there.txt").read_text())
    resolved = needs.resolve(uv, REPOSITORY, there, work)
    pins = {name: package.version for name, package in resolved.items()}
    lacking = {name: version for name, version in pins.items() if there.get(name) != version}
    sizes = needs.wheel_sizes(uv, lacking.items(), work)
    why_omitted = partial(omitted.reason, table=omitted.PACKAGES)
    sorted_out = needs.sort_out(resolved, there, why_omitted, sizes.__contains__)
    report(sorted_out, pins, sizes)
    if sorted_out.unmet or args.list:
        return bool(sorted_out.unmet)
    wanted = [f"{name}=={pins[name]}" for name in sorted_out.packed]
    kit = fill(uv, wanted, work, args.model)
    unmet = needs.unmet_requirements(kit / "site", there, why_omitted)
    for line in unmet:
        print(f"UNMET    {line}")
    if unmet:
        return 1
    write(kit, args.output.resolve() / "parts", args.part_mib * parts.MIB)
    return 0


def report(found: needs.Needs, pins: dict[str, str], sizes: dict[str, int | None]) -> None:
    """What is packed, omitted, stale and unmet."""

    def size(name: str) -> str:
        known = sizes.get(name)
        return "size unknown" if known is None else f"{known / 1e6:.2f} MB"

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
