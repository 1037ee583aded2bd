"""Sections of 64-bit ELF files: where they lie, and those that no process ever maps."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

#: Class 64 bits, little endian.
MAGIC = b"\x7fELF\x02\x01"
NO_BITS = 8
ALLOCATED = 2

#: Symbols for linkers and debuggers. (The dynamic ones are mapped, and have other names.)
FOR_DEBUGGERS = (".debug_", ".symtab", ".strtab")


@dataclass(frozen=True)
class Section:
    """One row of the section table.

    Attributes:
        name: Such as `.text`.
        mapped: Whether a process has it in memory.
        start: Byte of the file.
        end: Byte after it.
    """

    name: str
    mapped: bool
    start: int
    end: int


def sections(data: bytes) -> list[Section]:
    """Those that are in the file; none of any other file than 64-bit ELF."""
    if data[: len(MAGIC)] != MAGIC:
        return []
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names_index = struct.unpack_from("<HHH", data, 58)
    rows = [struct.unpack_from("<IIQQQQ", data, table + size * n) for n in range(count)]
    found = []
    for name, kind, flags, _, start, length in rows:
        if kind != NO_BITS and length:
            begin = rows[names_index][4] + name
            text = data[begin : data.index(b"\0", begin)].decode()
            found.append(Section(text, bool(flags & ALLOCATED), start, start + length))
    return found


def zero_symbols(file: Path) -> int:
    """Overwrites with zeros what only linkers and debuggers read; all else keeps its place.

    Returns:
        Bytes zeroed.
    """
    data = bytearray(file.read_bytes())
    unmapped = [
        section
        for section in sections(data)
        if not section.mapped and section.name.startswith(FOR_DEBUGGERS)
    ]
    for section in unmapped:
        data[section.start : section.end] = bytes(section.end - section.start)
    if unmapped:
        file.write_bytes(data)
    return sum(section.end - section.start for section in unmapped)
