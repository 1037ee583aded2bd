"""What rsp_rl on a GPU needs that a bare machine lacks, as uv resolves it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement

#: The machine's: Ubuntu 24.04. Wheels of an older glibc are taken too.
PLATFORM = ("--python-version", "3.12", "--python-platform", "x86_64-manylinux_2_39")

#: The same in the words of requirements' markers.
MACHINE = {
    "python_version": "3.12",
    "python_full_version": "3.12.3",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "sys_platform": "linux",
    "os_name": "posix",
}

PROJECT = "rsp-rl"


def normalised(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(text: str) -> dict[str, str]:
    """Versions by name, of what `pip freeze` prints."""
    rows = (line.split("#")[0].strip().split("==") for line in text.splitlines())
    return {normalised(row[0]): row[1] for row in rows if len(row) == 2}


@dataclass(frozen=True)
class Resolved:
    """A package of the resolution.

    Attributes:
        version: Chosen.
        wanted_by: Names of packages that need it.
    """

    version: str
    wanted_by: frozenset[str]


def resolution(text: str) -> dict[str, Resolved]:
    """Of `uv pip compile --annotation-style line`: `name==version  # via a, b`."""
    found = {}
    for line in text.splitlines():
        package, _, via = line.partition("# via ")
        name, equals, version = package.strip().partition("==")
        if equals:
            wanted_by = frozenset(normalised(each) for each in re.split(r",\s*", via.strip()))
            found[normalised(name)] = Resolved(version, wanted_by)
    return found


@dataclass
class Needs:
    """A resolution, sorted by what becomes of each package.

    Attributes:
        packed: Reason ("missing", "other version: ...") by name.
        there: Names of what the machine has in the wanted version.
        omitted: Reason by name.
        unmet: Names of what is needed, is neither packed nor there, and has no reason.
    """

    packed: dict[str, str] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)
    omitted: dict[str, str] = field(default_factory=dict)
    unmet: set[str] = field(default_factory=set)


def sort_out(
    resolved: dict[str, Resolved],
    there: dict[str, str],
    reason: Callable[[str], str | None],
    installable: Callable[[str], bool] = lambda name: True,
) -> Needs:
    """What to pack, beginning at the project: what only an omitted package needs is omitted too.

    Args:
        resolved: By name; `PROJECT` itself need not be in it.
        there: The machine's versions by name.
        reason: Why a package is omitted, None for one that is not.
        installable: Whether the index has a file of it for the machine.
    """
    needs = Needs()
    wanted_from: dict[str, list[str]] = {}
    for name, package in resolved.items():
        for other in package.wanted_by:
            wanted_from.setdefault(other, []).append(name)
    waiting, seen = [PROJECT], {PROJECT}
    while waiting:
        for name in sorted(wanted_from.get(waiting.pop(), [])):
            if name in seen:
                continue
            seen.add(name)
            version = resolved[name].version
            if there.get(name) == version:
                needs.there.add(name)
            elif why := reason(name):
                needs.omitted[name] = why
                continue
            elif not installable(name):
                needs.unmet.add(name)
            elif name in there:
                needs.packed[name] = f"other version: {there[name]}"
            else:
                needs.packed[name] = "missing"
            waiting.append(name)
    for name in resolved.keys() - seen - {PROJECT}:
        wanted_by = sorted(resolved[name].wanted_by)
        if there.get(name) != resolved[name].version:
            needs.omitted[name] = "needed only by omitted " + ", ".join(wanted_by)
    return needs


def unmet_requirements(
    site: Path, there: dict[str, str], reason: Callable[[str], str | None]
) -> list[str]:
    """What installed packages need, and neither they nor the machine meet; omitted ones aside.

    Their own metadata says it, so this checks the resolution; extras are left to that.
    """
    installed = list(distributions(path=[str(site)]))
    available = there | {normalised(each.name): each.version for each in installed}
    found = []
    for package in installed:
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker and not needed.marker.evaluate(MACHINE | {"extra": ""}):
                continue
            name = normalised(needed.name)
            if reason(name) is None and not (
                name in available and needed.specifier.contains(available[name], prereleases=True)
            ):
                found.append(f"{package.name} needs {line}; there is {available.get(name)}")
    return sorted(found)


def find_uv(work: Path) -> str:
    """uv of the PATH, else of an environment made in the work folder."""
    if found := shutil.which("uv"):
        return found
    made = work / "uv" / "bin" / "uv"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", work / "uv"], check=True)
        pip = [made.with_name("python"), "-m", "pip", "install", "-qq", "uv"]
        subprocess.run(pip, check=True)
    return str(made)


def resolve(uv: str, project: Path, there: dict[str, str], work: Path) -> dict[str, Resolved]:
    """The GPU extra's whole resolution; uv keeps versions of the machine that bounds admit."""
    wanted, out = work / "wanted.in", work / "resolved.txt"
    wanted.write_text(f"{project}[gpu]\n")
    kept = (f"{name}=={version}\n" for name, version in there.items() if name != "pip")
    out.write_text("".join(kept))  # uv prefers what an output file already has
    _compile(uv, wanted, out, "--annotation-style", "line")
    return resolution(out.read_text())


def wheel_sizes(uv: str, packages: Iterable[tuple[str, str]], work: Path) -> dict[str, int | None]:
    """Bytes to download by name, None where the index does not tell.

    A package is absent where the index has neither a wheel for the machine nor a source.
    """
    pins, out = work / "pins.in", work / "pylock.toml"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in packages))
    out.unlink(missing_ok=True)
    _compile(uv, pins, out, "--no-deps")
    return sizes(tomllib.loads(out.read_text()))


def sizes(lock: dict) -> dict[str, int | None]:
    """Of a `pylock.toml`: a package's wheel, else its source."""
    found = {}
    for package in lock["packages"]:
        files = package.get("wheels") or [package[kind] for kind in ("sdist",) if kind in package]
        if files:
            found[normalised(package["name"])] = files[0].get("size")
    return found


def _compile(uv: str, wanted: Path, out: Path, *options: str) -> None:
    command = [uv, "pip", "compile", "-q", "--no-header", *PLATFORM, *options, wanted, "-o", out]
    subprocess.run(command, check=True)
