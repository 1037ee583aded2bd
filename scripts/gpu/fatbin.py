"""CUDA fat binaries without the images that one chip never loads.

A shared library carries each kernel for many chips: `.nv_fatbin` is a row of containers, each a
header and a row of images (PTX or ELF), one an architecture. The driver loads one image of a
container. Here a container keeps its place, but only the images that a chip may load; what is
behind them, up to the next container, becomes zeros, which compress to nothing.

The layout is NVIDIA's own and not documented: what is read here was checked against `cuobjdump`,
which finds the same images, byte for byte, before and after. Little endian throughout:

    container  u32 magic, u16 version, u16 header size, u64 size of what follows the header
    image      u16 kind (1 PTX, 2 ELF), u16 version, u32 header size, u64 payload size, ...,
               at byte 28: u32 architecture (90: sm_90, and sm_90a too)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpu import elf

CONTAINER = struct.Struct("<IHHQ")
MAGIC = 0xBA55ED50
IMAGE = struct.Struct("<HHIQ")
ARCHITECTURE_AT = 28
PTX, ELF = 1, 2

#: Sections of a shared library that hold containers.
SECTIONS = (".nv_fatbin", "__nv_relfatbin")


class UnknownStructure(Exception):
    """A library that is not laid out as this module knows; it must stay as it is."""


@dataclass(frozen=True)
class Image:
    """One image of a container.

    Attributes:
        kind: `PTX` or `ELF`.
        architecture: Of the chip, such as 90.
        start: Byte of the file at which its header begins.
        end: Byte after its payload.
    """

    kind: int
    architecture: int
    start: int
    end: int


@dataclass(frozen=True)
class Container:
    """Images between two bytes of a file.

    Attributes:
        start: Byte at which its header begins.
        header: Bytes of that.
        end: Byte after the last image.
        images: In their order.
    """

    start: int
    header: int
    end: int
    images: tuple[Image, ...]


@dataclass(frozen=True)
class Shrunk:
    """What `shrink` did.

    Attributes:
        images: In the file before.
        removed: Of them.
        bytes_zeroed: That are zeros now.
    """

    images: int
    removed: int
    bytes_zeroed: int


def containers(data: bytes, start: int, end: int) -> Iterator[Container]:
    """The containers between two bytes.

    Raises:
        UnknownStructure: Anything but containers with zeros between them.
    """
    while start < end:
        if not any(data[start : start + 8]):  # up to alignment
            start += 8
            continue
        if start + CONTAINER.size > end:
            raise UnknownStructure(f"no room for a container at byte {start}")
        magic, version, header, size = CONTAINER.unpack_from(data, start)
        stop = start + header + size
        if (magic, version) != (MAGIC, 1) or header < CONTAINER.size or stop > end:
            raise UnknownStructure(f"no container at byte {start}")
        yield Container(start, header, stop, tuple(_images(data, start + header, stop)))
        start = stop


def _images(data: bytes, start: int, end: int) -> Iterator[Image]:
    while start < end:
        if start + ARCHITECTURE_AT + 4 > end:
            raise UnknownStructure(f"no room for an image at byte {start}")
        kind, _, header, size = IMAGE.unpack_from(data, start)
        (architecture,) = struct.unpack_from("<I", data, start + ARCHITECTURE_AT)
        stop = start + header + size
        if kind not in (PTX, ELF) or header < ARCHITECTURE_AT + 4 or stop > end:
            raise UnknownStructure(f"no image at byte {start}")
        if not 50 <= architecture < 200:
            raise UnknownStructure(f"architecture {architecture} at byte {start}")
        yield Image(kind, architecture, start, stop)
        start = stop


def kept(images: tuple[Image, ...], architecture: int) -> list[Image]:
    """Of a container, what a chip of this architecture may load.

    Its own ELF where there is one; else PTX, which the driver compiles, and ELF of its generation.
    Where there is neither, the smallest image: a container is never empty, and the driver says the
    same of it as before, that it is for another chip.
    """
    own = [i for i in images if i.kind == ELF and i.architecture == architecture]
    near = [i for i in images if i.kind == PTX or i.architecture // 10 == architecture // 10]
    return own or near or sorted(images, key=lambda image: image.end - image.start)[:1]


def shrink(file: Path, architecture: int) -> Shrunk | None:
    """Takes out what a chip never loads; None for a file without fat binaries.

    The file keeps its size, and all but its containers their bytes.

    Raises:
        UnknownStructure: The file is not laid out as known; it is left as it is.
    """
    data = bytearray(file.read_bytes())
    found = [
        container
        for section in elf.sections(data)
        if section.name in SECTIONS
        for container in containers(data, section.start, section.end)
    ]
    if not found:
        return None
    removed = zeroed = 0
    for container in found:
        keep = kept(container.images, architecture)
        body = b"".join(data[image.start : image.end] for image in keep)
        begin = container.start + container.header
        zeros = container.end - begin - len(body)
        data[begin : container.end] = body + bytes(zeros)
        magic, version, header, _ = CONTAINER.unpack_from(data, container.start)
        CONTAINER.pack_into(data, container.start, magic, version, header, len(body))
        removed += len(container.images) - len(keep)
        zeroed += zeros
    if removed:
        file.write_bytes(data)
    return Shrunk(sum(len(each.images) for each in found), removed, zeroed)
