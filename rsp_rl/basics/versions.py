"""Which versions are there, and which this package is for, as an error of an import tells them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

_NAME = "rsp-rl"


def told(*distributions: str) -> str:
    """Installed and wanted versions, as words of a sentence.

    Args:
        distributions: Names; what is not installed is left out.
    """
    there = [name for name in distributions if _is_there(name)]
    if not there:
        return f"{' and '.join(distributions)}: not installed"
    found = ", ".join(f"{name} {version(name)}" for name in there)
    wanted = [line for name in there for line in _wanted(name)]
    return f"installed: {found}" + (f" (rsp-rl is for {' and '.join(wanted)})" if wanted else "")


def _is_there(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _wanted(distribution: str) -> list[str]:
    """Exact versions of a distribution among our own requirements, extras included."""
    try:
        lines = requires(_NAME) or []
    except PackageNotFoundError:  # run from a folder that is not installed
        return []
    exact = re.compile(rf"{re.escape(distribution)}(?:\[[^]]*\])?(==[^;,\s]+)")
    return sorted({f"{distribution}{m[1]}" for line in lines if (m := exact.match(line))})
