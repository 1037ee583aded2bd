"""A folder as one compressed stream in numbered parts, with their sums."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

MIB = 1 << 20

#: Blocks are what `xz -dT0` unpacks side by side; a dictionary as large finds what repeats in one.
#: Higher presets take longer for half a percent.
XZ = ("xz", "-T0", "--block-size=64MiB", "--lzma2=preset=6,dict=64MiB", "--check=crc64", "-c")

#: One order and no owners or times: the same files are the same stream.
TAR = (
    *("tar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"),
    *("--mtime=2000-01-01T00:00Z", "-c"),
)


def write_parts(folder: Path, parts: Path, part_bytes: int) -> list[Path]:
    """`kit.01`, `kit.02`, ... of everything in a folder; together they are one `.tar.xz`."""
    tar = subprocess.Popen([*TAR, "-C", folder, "."], stdout=subprocess.PIPE)
    xz = subprocess.Popen(XZ, stdin=tar.stdout, stdout=subprocess.PIPE)
    tar.stdout.close()
    written = []
    while piece := xz.stdout.read(part_bytes):
        written.append(parts / f"kit.{len(written) + 1:02d}")
        written[-1].write_bytes(piece)
    for process in (tar, xz):
        if process.wait():
            raise RuntimeError(f"{process.args[0]} ended with status {process.returncode}")
    return written


def write_sums(files: list[Path]) -> Path:
    """`SHA256SUMS` beside the files, as `sha256sum -c` reads it."""
    sums = files[0].with_name("SHA256SUMS")
    lines = (f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files)
    sums.write_text("".join(lines))
    return sums
