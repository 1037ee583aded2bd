"""The versions of an environment, as constraints that pip takes.

    .venv/bin/python scripts/constraints.py > constraints/cpu.txt

Run by the environment's own Python. What pyproject.toml names, extras included, is written, and
what that needs; not what else lies in the environment.
"""

from __future__ import annotations

import platform
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
EXTRAS = ("cpu", "dev")

#: Made here (`scripts/vllm_cpu_alias`) and never fetched.
LOCAL = {"rsp-rl", "vllm"}

Requires = Callable[[str], list[str] | None]


def named(extras: tuple[str, ...] = EXTRAS) -> list[Requirement]:
    """What pyproject.toml asks for, extras that extras name included."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    own = project["optional-dependencies"]
    found = [Requirement(line) for line in project["dependencies"]]
    waiting = list(extras)
    while waiting:
        for requirement in map(Requirement, own[waiting.pop()]):
            if requirement.name == project["name"]:
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


def needed(requirements: list[Requirement], requires: Requires = requires) -> set[str]:
    """Names of what is asked for, as far as it is installed, and of all that it needs in turn.

    Args:
        requirements: What is asked for.
        requires: What a distribution asks for; raises `PackageNotFoundError` for one that is not
            installed, as a requirement for another platform is not.
    """
    seen: set[tuple[str, str]] = set()
    waiting = [
        (canonicalize_name(requirement.name), extra)
        for requirement in requirements
        for extra in ("", *requirement.extras)
    ]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                other = canonicalize_name(requirement.name)
                waiting += [(other, of_its) for of_its in ("", *requirement.extras)]
    return {name for name, _ in seen}


def line(name: str, installed: str) -> str:
    """A constraint; without what a build calls itself: `2.13.0+cpu` is a 2.13.0."""
    return f"{name}=={Version(installed).public}"


def main() -> int:
    """Print the constraints; an error if something that pyproject.toml names is not installed."""
    asked = named()
    names = needed(asked) - LOCAL
    if missing := {canonicalize_name(requirement.name) for requirement in asked} - names:
        print(
            f"error: not installed: {', '.join(sorted(missing))}; see scripts/setup.sh",
            file=sys.stderr,
        )
        return 1
    print(f"# rsp-rl[{','.join(EXTRAS)}] as it was tested; written by scripts/constraints.py.")
    print(f"# Python {platform.python_version()}, {platform.system()} {platform.machine()}.")
    for name in sorted(names):
        print(line(name, version(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
