"""What stays in a library, on made ones: CUDA images for a chip, and no symbols."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from gpu.elf import sections, zero_symbols
from gpu.fatbin import CONTAINER, ELF, IMAGE, MAGIC, PTX, UnknownStructure, containers, shrink

#: An image: kind, architecture, payload.
Row = tuple[int, int, bytes]

ELF_80, ELF_90, ELF_90A, ELF_100 = (
    (ELF, 80, b"8" * 64),
    (ELF, 90, b"9" * 40),
    (ELF, 90, b"a" * 48),
    (ELF, 100, b"X" * 160),
)
PTX_80, PTX_90 = (PTX, 80, b"p" * 32), (PTX, 90, b"q" * 24)


def image(row: Row) -> bytes:
    kind, architecture, payload = row
    header = bytearray(64)
    IMAGE.pack_into(header, 0, kind, 0x101, len(header), len(payload))
    struct.pack_into("<I", header, 28, architecture)
    return bytes(header) + payload


def container(rows: Iterable[Row]) -> bytes:
    body = b"".join(map(image, rows))
    return CONTAINER.pack(MAGIC, 1, CONTAINER.size, len(body)) + body


def library(section: bytes, name: bytes = b".nv_fatbin", flags: int = 2) -> bytes:
    """A 64-bit ELF file of that section and its table of names; flag 2: a process maps it."""
    names = b"\0" + name + b"\0"
    start = 64
    headers = start + len(section) + len(names)
    table = bytes(64)  # the first is void
    for at, bits, where, size in (
        (1, flags, start, len(section)),
        (0, 0, start + len(section), len(names)),
    ):
        table += struct.pack("<IIQQQQIIQQ", at, 1, bits, 0, where, size, 0, 0, 8, 0)
    head = bytearray(start)
    head[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", head, 40, headers)
    struct.pack_into("<HHH", head, 58, 64, 3, 2)
    return bytes(head) + section + names + table


def rows_of(data: bytes) -> list[list[Row]]:
    return [
        [(i.kind, i.architecture, data[i.start + 64 : i.end]) for i in each.images]
        for section in sections(data)
        if section.name == ".nv_fatbin"
        for each in containers(data, section.start, section.end)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "library.so"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([ELF_80, ELF_90, ELF_90A, ELF_100, PTX_90], [ELF_90, ELF_90A]),
        ([ELF_80, PTX_80, ELF_100], [PTX_80]),
        ([ELF_100, ELF_80], [ELF_80]),  # none is for this chip: the smallest stays
        ([ELF_90], [ELF_90]),
    ],
)
def test_what_stays(file: Path, before: list[Row], after: list[Row]) -> None:
    file.write_bytes(library(container(before)))
    done = shrink(file, 90)
    assert rows_of(file.read_bytes()) == [after]
    assert (done.images, done.removed) == (len(before), len(before) - len(after))


def test_containers_keep_their_places_and_the_file_its_size(file: Path) -> None:
    first, second = container([ELF_100, ELF_90]), container([ELF_80, ELF_90A])
    before = library(first + bytes(16) + second)
    file.write_bytes(before)
    done = shrink(file, 90)
    after = file.read_bytes()
    assert len(after) == len(before)
    assert rows_of(after) == [[ELF_90], [ELF_90A]]
    assert after.index(second[:8], 65) == before.index(second[:8], 65)
    assert after[64 + len(first) + 16 + len(second) :] == before[64 + len(first + second) + 16 :]
    assert done.bytes_zeroed == len(image(ELF_100)) + len(image(ELF_80))


@pytest.mark.parametrize(
    "data", [b"#!/bin/sh\n" * 20, library(container([ELF_80]), name=b".rodata")]
)
def test_a_file_without_fat_binaries(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    assert shrink(file, 90) is None
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    "section",
    [
        b"something else, 24 bytes",
        container([ELF_80, ELF_90])[:-8],  # cut off
        container([(7, 90, b"x" * 8)]),  # an unknown kind
        container([(ELF, 5000, b"x" * 8)]),
        CONTAINER.pack(MAGIC, 2, CONTAINER.size, 0),  # another version
    ],
)
def test_an_unknown_structure_stays_as_it_is(file: Path, section: bytes) -> None:
    data = library(container([ELF_80, ELF_90]) + section)
    file.write_bytes(data)
    with pytest.raises(UnknownStructure):
        shrink(file, 90)
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("name", "flags", "zeroed"),
    [
        (b".debug_info", 0, True),
        (b".symtab", 0, True),
        (b".symtab", 2, False),  # a process maps it
        (b".dynstr", 2, False),
        (b".comment", 0, False),
    ],
)
def test_symbols_become_zeros(file: Path, name: bytes, flags: int, zeroed: bool) -> None:
    before = library(b"x" * 40, name, flags)
    file.write_bytes(before)
    assert zero_symbols(file) == 40 * zeroed
    after = before.replace(b"x" * 40, bytes(40)) if zeroed else before
    assert file.read_bytes() == after
