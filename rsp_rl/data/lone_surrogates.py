"""Halves of characters, which JSON may hold and no tokenizer and no file takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lone_surrogate(value: Any, where: str = "") -> str | None:
    """Which field of a row holds half a character, in words; None if none does.

    Args:
        value: A row, or a part of one.
        where: What an error calls it.
    """
    if isinstance(value, str):
        # Nearly every text is ASCII, which is told without going through it.
        if value.isascii():
            return None
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return (
                f"{where!r} holds half a character, \\u{ord(value[error.start]):04x} without its "
                "other half (a lone surrogate); mend or remove it"
            )
    elif isinstance(value, Mapping):
        for key, item in value.items():
            name = f"{where}.{key}".removeprefix(".")
            if problem := lone_surrogate(key, "a field's name") or lone_surrogate(item, name):
                return problem
    elif isinstance(value, list):
        for item in value:
            if problem := lone_surrogate(item, where):
                return problem
    return None
