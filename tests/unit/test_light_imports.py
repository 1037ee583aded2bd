"""Which heavy packages each command loads: what it needs, and nothing that makes it slow to answer.

Each in a fresh interpreter. A package that is not in a line below must not be loaded there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rsp_rl.cli import COMMANDS
from tests.unit.evaluation.made_runs import make_evaluation

#: Packages that take a tenth of a second or more, torch and all on top of it seconds.
HEAVY = (
    *("torch", "transformers", "vllm", "verl", "ray", "tensordict", "datasets", "huggingface_hub"),
    *("hydra", "omegaconf", "numpy", "pyarrow", "pandas", "scipy", "sklearn", "sympy"),
    *("matplotlib", "safetensors", "sentence_transformers"),
)

#: By command, what `rsp-rl COMMAND --help` loads; nothing where it is not listed. That of
#: `train` is Hydra's, from a process of its own.
HELP = {
    "report": {"matplotlib", "numpy", "omegaconf"},
    "eval": {"numpy"},
    "compare": {"matplotlib", "numpy"},
    "generate": {"numpy"},
    "analyze": {"torch", "matplotlib", "numpy", "omegaconf", "safetensors"},
    "reproduce": {"torch", "numpy", "omegaconf", "safetensors"},
    "train-comparator": {"torch", "numpy", "safetensors"},
}

#: By module, what its import loads.
MODULES = {
    "rsp_rl.cli": set(),
    "rsp_rl.grading": set(),
    "rsp_rl.placement.tokens": set(),
    "rsp_rl.placement.dates": set(),
    "rsp_rl.models.folder": set(),
    "rsp_rl.models.context": set(),
    "rsp_rl.models.kept_text": set(),
    "rsp_rl.models.vocabulary": set(),
    "rsp_rl.data.benchmarks": set(),
    "rsp_rl.data.gsm8k_steps": set(),
    "rsp_rl.data.prosqa": set(),
    "rsp_rl.latent.run_folder": set(),
    "rsp_rl.evaluation.marked": set(),
    "rsp_rl.latent.ccot.settings": set(),
    "rsp_rl.draws.record": {"numpy"},
    "rsp_rl.dials.options": {"numpy"},
    "rsp_rl.training.configs": {"hydra", "omegaconf"},
    "rsp_rl.training.dry_run": {"hydra", "omegaconf", "numpy"},
    "rsp_rl.training.prompts": {"omegaconf", "numpy", "pyarrow"},
    "rsp_rl.training.tools": {"omegaconf"},
    "rsp_rl.training.train": {"hydra", "omegaconf"},
}

#: Commands that are finished without torch: what they have loaded by then.
DRY_RUN = {"hydra", "omegaconf", "numpy"}
COMPARE = {"matplotlib", "numpy"}
GRADE: set[str] = set()


def loaded(code: str, folder: Path) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded once the code has run."""
    report = folder / "loaded.json"
    program = f"""
import atexit, json, pathlib, sys
keep = pathlib.Path({str(report)!r}).write_text
atexit.register(lambda: keep(json.dumps([name for name in {HEAVY!r} if name in sys.modules])))
{code}"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(report.read_text()))


def command(*arguments: str) -> str:
    """The code of an `rsp-rl` call."""
    return f"from rsp_rl.cli import main\nraise SystemExit(main({list(arguments)!r}))"


def test_help_loads_nothing(tmp_path: Path) -> None:
    assert loaded(command("--help"), tmp_path) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, tmp_path: Path) -> None:
    assert loaded(command(name, "--help"), tmp_path) == HELP.get(name, set())


@pytest.mark.parametrize("name", MODULES)
def test_import_of_a_module(name: str, tmp_path: Path) -> None:
    assert loaded(f"import {name}", tmp_path) == MODULES[name]


def test_a_dry_run(tmp_path: Path) -> None:
    """From the command to the last line; verl's configs are read without verl."""
    model = "actor_rollout_ref.model.path=Qwen/Qwen2.5-Math-7B"
    arguments = ["--config-name", "dapo_rsp", "+machine=gpu", model]
    code = f"from rsp_rl.training.dry_run import main\nraise SystemExit(main({arguments!r}))"
    assert loaded(code, tmp_path) == DRY_RUN


def test_a_comparison(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_evaluation(tmp_path / name, {0: 0.3, 10: 0.6})
    runs = [str(tmp_path / name) for name in ("a", "b")]
    assert loaded(command("compare", *runs, "--output", str(tmp_path / "out")), tmp_path) == COMPARE
    assert (tmp_path / "out" / "comparison.md").is_file()


def test_grading(tmp_path: Path) -> None:
    """Algebra too: SymPy lives in the worker."""
    file = tmp_path / "outputs.jsonl"
    file.write_text(json.dumps({"output": r"\boxed{(x+1)^2}", "gold": "x^2+2x+1"}) + "\n")
    assert loaded(command("grade", str(file)), tmp_path) == GRADE
