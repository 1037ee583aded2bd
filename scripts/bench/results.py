"""Checks and figures of a script that may be cut off: written as they come."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


class Results:
    """What was checked and measured; on the screen and in a JSON file at once.

    Args:
        file: Written whole after each entry, so that what a killed process found is there.
        **about: What it was measured on.
    """

    def __init__(self, file: Path, **about: Any) -> None:
        self._file = file
        self._content: dict[str, Any] = {**about, "checks": {}, "figures": [], "finished": False}
        file.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def check(self, name: str, passed: bool, **figures: Any) -> None:
        """One check, with the figures that decided it."""
        self._content["checks"][name] = {"passed": bool(passed), **figures}
        self._write()
        print(f"{'ok  ' if passed else 'FAIL'} {name}{_told(figures)}", flush=True)

    def figure(self, what: str, **figures: Any) -> None:
        """Something measured, that is neither right nor wrong."""
        self._content["figures"].append({"what": what, **figures})
        self._write()
        print(f"     {what}{_told(figures)}", flush=True)

    def finish(self) -> int:
        """Say how many checks passed; the exit status, 1 where one failed or none was made."""
        self._content["finished"] = True
        self._write()
        checks = self._content["checks"]
        failed = [name for name, check in checks.items() if not check["passed"]]
        print(f"{len(checks) - len(failed)} checks passed, {len(failed)} failed", flush=True)
        return 1 if failed or not checks else 0

    def _write(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(self._content, indent=1, default=str) + "\n")
        partial.rename(self._file)


def _told(figures: dict[str, Any]) -> str:
    """Figures behind a name."""
    told = [f"{name.replace('_', ' ')} {_short(value)}" for name, value in figures.items()]
    return ": " * bool(told) + ", ".join(told)


def _short(value: Any) -> str:
    """Three digits of a fraction; all of anything else."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
