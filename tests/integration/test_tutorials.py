"""The tutorials run as they stand, in one folder, in the order in which they are read.

They share what they keep in it: the tiny model, and the training that is evaluated afterwards.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.notebooks import FOLDER, NAMES
from tests.integration.harness import REPOSITORY

#: Lines that a tutorial has to print, in their order: what its text says of them must hold.
NUMBER = r"-?\d\.\d{3}"
INTERVAL = rf"\[{NUMBER}, {NUMBER}\]"
PRINTED = {
    "soft_prompt": [
        "drawn again from it, equal to the bit: True",
        "equal with another seed: False",
        r"suffix, from token 11 on: .* \. (\[H\] ){8}<\|im_end\|>",
        r"prefix, from token 0 on: (\[H\] ){8}<\|im_start\|>",
        "picture: .*soft_prompt.png",
    ],
    "generate": [
        "soft prompt none: 1 different answers of 8",
        r"soft prompt suffix: \d different answers of 8",
        "the same draws give the same answers: True",
        "picture: .*first_token.png",
        r"\| τ = 2 \| 1\.000 .* \|",
        rf"\| suffix \| 0\.\d{{3}} {INTERVAL} \|",
    ],
    "train": [
        "step 5/5 .*",
        *(rf" +{step} +\d\.\d{{3}}  \de-0[78]  ok" for step in range(1, 6)),
        r"gap with the soft prompts: \de-0[78] nats",
        r"gap if the actor forgot them: \de-0[1-3] nats",
        r"share of tokens whose log-prob they move: (0\.9\d|1\.00)",
        r".*'law': 'gaussian', 'length': 8.*",
    ],
    "evaluate": [
        rf"rsp +step 0: {NUMBER} {INTERVAL}",
        rf"plain +step 5: {NUMBER} {INTERVAL}",
        rf"rsp - plain at the common step, arithmetic: [+]?{NUMBER} \[.*\] (contains|does not) ",
    ],
    "own_law": [
        r"numbers that it draws: \[-0.5, 0.5\]",
        "again: True",
        r"signs: \d different answers of 8",
        *(rf"step {step}: gap \de-0[78], ok" for step in (1, 2)),
        "law of step 1's rollouts: {'signs'}",
    ],
}

PICTURES = {"soft_prompt": ["soft_prompt.png"], "generate": ["first_token.png"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them run."""
    return tmp_path_factory.mktemp("tutorials")


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_and_prints_what_it_speaks_of(name: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "Agg"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    left = done.stdout
    for line in PRINTED[name]:
        match = re.search(rf"^{line}", left, re.MULTILINE)
        assert match, f"no line {line!r} in what is left of it:\n{left[-4000:]}"
        left = left[match.end() :]
    kept = folder / "runs" / "tutorials"
    for picture in PICTURES.get(name, ()):
        assert (kept / picture).read_bytes().startswith(b"\x89PNG")
