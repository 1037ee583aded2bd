"""Values of command lines, checked as they are parsed."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """A whole number above 0 from a command line.

    Raises:
        ArgumentTypeError: If the text is none.
    """
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def from_zero(text: str) -> int:
    """A whole number from 0 on from a command line.

    Raises:
        ArgumentTypeError: If the text is none.
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)
