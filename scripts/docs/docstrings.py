"""Docstrings in Google's style as Markdown."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises):$")
_ENTRY = re.compile(r"^(\*{0,2}\w[\w.]*)(?: \([^)]*\))?: (.*)$")


@dataclass(frozen=True)
class Docstring:
    """What a docstring says.

    Attributes:
        text: Paragraphs before the first section.
        entries: By section, pairs of name and description; a section of free text has one, whose
            name is empty.
    """

    text: str
    entries: dict[str, list[tuple[str, str]]]

    @property
    def first(self) -> str:
        """Its first paragraph, in a line."""
        return " ".join(self.text.split("\n\n")[0].split())


def parse(thing: Any) -> Docstring:
    """Read the docstring of a class, a function or a module."""
    lines = inspect.cleandoc(thing.__doc__ or "").splitlines()
    starts = [i for i, line in enumerate(lines) if _SECTION.match(line)]
    text = "\n".join(lines[: starts[0]] if starts else lines).strip()
    entries = {}
    for start, end in itertools.pairwise([*starts, len(lines)]):
        name = lines[start].rstrip(":")
        entries[name] = _entries(lines[start + 1 : end])
    return Docstring(markdown(text), entries)


def _entries(lines: Sequence[str]) -> list[tuple[str, str]]:
    """A section's; those that follow on are indented deeper than their first line."""
    found: list[list[str]] = []
    for line in inspect.cleandoc("\n".join(["", *lines])).splitlines():
        if match := _ENTRY.match(line):
            found.append([match[1], match[2]])
        elif line.strip() and found:
            found[-1][1] += f" {line.strip()}"
        elif line.strip():
            found.append(["", line.strip()])
    return [(name, markdown(text)) for name, text in found]


def markdown(text: str) -> str:
    """Text with what would be HTML escaped, code left alone."""
    parts = re.split(r"(``.*?``|`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else part.replace("&", "&amp;").replace("<", "&lt;")
        for part in parts
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; of a bar in a cell, which would end it, a character that looks the same."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "&#124;")


def code(value: object) -> str:
    """A value as code, also where it holds a bar: in a table code cannot escape one."""
    text = str(value).replace(" | ", " or ")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
