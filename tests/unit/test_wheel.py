"""The wheel, installed outside the checkout: it holds all that a command reads, and works alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from rsp_rl import __version__

REPOSITORY = Path(__file__).resolve().parents[2]

#: What a build reads. Copied, for setuptools leaves its own files beside them.
SOURCES = ("rsp_rl", "configs", "eval", "recipes", "pyproject.toml", "setup.py")
SOURCES += ("README.md", "LICENSE")


class Installed:
    """An environment with the wheel, and an empty folder to work in.

    Args:
        root: Where both are made.
        wheel: What is installed.
    """

    def __init__(self, root: Path, wheel: Path) -> None:
        self.root = root / "venv"
        self.folder = root / "work"
        self.folder.mkdir()
        venv.create(self.root, symlinks=True)
        [packages] = self.root.glob("lib/python*/site-packages")
        self.package = packages / "rsp_rl"
        # After its own, and as plain paths: their .pth files, which may lead to a checkout, do
        # not count.
        heavy = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (packages / "heavy.pth").write_text("\n".join(heavy))
        python = self.root / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
        # Where a checkout is on the path, pip takes the package for installed.
        known = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        _check([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], root, known)

    def run(self, *command: str | Path, **variables: str) -> str:
        """A command's standard output; its environment knows no checkout and no graphics."""
        bin_ = str(self.root / "bin")
        known = {key: os.environ[key] for key in ("HOME", "TMPDIR") if key in os.environ}
        path = f"{bin_}:/usr/local/bin:/usr/bin:/bin"
        return _check(command, self.folder, {**known, "PATH": path, **variables})


def _check(
    command: tuple[str | Path, ...] | list[str | Path],
    folder: Path,
    env: dict[str, str] | None = None,
) -> str:
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    source.mkdir()
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    flags = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", root]
    _check([*pip, *flags, source], root)
    [built] = root.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"), wheel)


def test_the_wheel_holds_what_the_checkout_has_and_no_more(wheel: Path) -> None:
    def files(folder: str, *suffixes: str) -> set[str]:
        found = (REPOSITORY / folder).rglob("*")
        return {str(p.relative_to(REPOSITORY)) for p in found if p.suffix in suffixes}

    shipped = files("configs", ".yaml") | files("eval/protocols", ".yaml") | files("recipes", ".sh")
    assert len(shipped) >= 20
    package = files("rsp_rl", ".py", ".html", ".css", ".js", ".typed")
    expected = package | {f"rsp_rl/_files/{name}" for name in shipped}
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert wheel.name == f"rsp_rl-{__version__}-py3-none-any.whl"


def test_its_own_files_are_used(installed: Installed) -> None:
    code = (
        "import json, rsp_rl\n"
        "from importlib.metadata import version\n"
        "from rsp_rl.basics import package_files as files\n"
        "from rsp_rl.evaluation.provenance import provenance\n"
        "places = [rsp_rl.__file__, files.CONFIGS, files.PROTOCOLS, files.RECIPES]\n"
        "print(json.dumps([*map(str, places), files.CHECKOUT, version('rsp-rl'),\n"
        "    provenance()['commit']]))"
    )
    *places, checkout, version, commit = json.loads(installed.run("python", "-c", code))
    package = installed.package.resolve()
    assert places[0] == str(installed.package / "__init__.py")
    names = ("configs", "eval/protocols", "recipes")
    assert places[1:] == [str(package / "_files" / name) for name in names]
    assert (checkout, version, commit) == (None, __version__, None)


def test_a_checkout_that_is_first_on_the_path_brings_its_own(installed: Installed) -> None:
    """As the copy of an uploaded Ray job does."""
    code = "from rsp_rl.basics import package_files as files; print(files.CHECKOUT, files.CONFIGS)"
    found = installed.run("python", "-c", code, PYTHONPATH=str(REPOSITORY)).split()
    assert found == [str(REPOSITORY), str(REPOSITORY / "configs")]


def test_help_and_version(installed: Installed) -> None:
    assert "    recipe " in installed.run("rsp-rl", "--help")
    assert installed.run("rsp-rl", "--version") == f"rsp-rl {__version__}\n"


def test_protocols_are_found_by_name(installed: Installed) -> None:
    code = (
        "from rsp_rl.evaluation.protocol import PROTOCOLS, load_modes\n"
        "for path in sorted(PROTOCOLS.glob('*.yaml')):\n"
        "    print(path.stem, len(load_modes(path.stem)))"
    )
    lines = installed.run("python", "-c", code).splitlines()
    protocols = (REPOSITORY / "eval" / "protocols").glob("*.yaml")
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in protocols)


def test_training_finds_its_configs(installed: Installed) -> None:
    """Hydra composes and prints the config, and ends."""
    printed = installed.run("rsp-rl", "train", "--config-name", "dapo_rsp", "--cfg", "job")
    config = yaml.safe_load(printed)
    assert config["rsp"]["length"] == 20
    assert config["actor_rollout_ref"]["actor"]["clip_ratio_high"] == 0.28


def test_a_dry_run_of_a_copied_recipe(installed: Installed) -> None:
    listed = installed.run("rsp-rl", "recipe", "--list").splitlines()
    assert "dapo_rsp_qwen7b" in [line.split()[0] for line in listed]
    printed = installed.run("rsp-rl", "recipe", "dapo_rsp_qwen7b", "--copy", "mine")
    assert "  DRY_RUN=1 bash mine/dapo_rsp_qwen7b.sh" in printed
    printed = installed.run("bash", "mine/dapo_rsp_qwen7b.sh", DRY_RUN="1")
    assert printed.startswith("python -m rsp_rl.training.train --config-name dapo_rsp +machine=gpu")
    # How much it is depends on vLLM's model runner.
    assert re.search(r"rollout, total: \d\d\.\d of 80: fits", printed)


def test_grade(installed: Installed) -> None:
    rows = [{"output": r"\boxed{\frac12}", "gold": "0.5"}, {"output": "2", "gold": "3"}]
    (installed.folder / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    printed = installed.run("rsp-rl", "grade", "answers.jsonl", "--processes", "1", "--quiet")
    assert printed.startswith("accuracy 0.5000 (1/2)")
