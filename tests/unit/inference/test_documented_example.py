"""The five lines of the documents, taken out of them and run."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from rsp_rl.inference import generator
from rsp_rl.inference.requests import EngineOptions
from tests.digit_model import make_digit_model

REPOSITORY = Path(__file__).resolve().parents[3]
DOCUMENTED = '"Qwen/Qwen2.5-Math-1.5B-Instruct"'


def from_readme() -> str:
    """The block of docs/generation.md that uses the Python API."""
    text = (REPOSITORY / "docs" / "generation.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Generator" in b]
    return block


def from_docstring() -> str:
    """The module's docstring after its first paragraph."""
    return textwrap.dedent(generator.__doc__.partition("\n\n")[2])


def test_both_are_the_same() -> None:
    assert from_readme().strip() == from_docstring().strip()
    assert len([line for line in from_readme().splitlines() if line.strip()]) <= 5


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the tiny model and the reference engine; the rest is as it stands there."""
    model = make_digit_model(tmp_path / "model")
    code = from_readme()
    assert code.count(f"Generator({DOCUMENTED})") == 1
    options = EngineOptions("huggingface", "float32", max_num_seqs=8)
    code = code.replace(DOCUMENTED, f"{str(model)!r}, options=options")
    names = {"options": options}
    exec(compile(code, "docs/generation.md", "exec"), names)
    assert names["sample"].number == 3  # of four
    printed = capsys.readouterr().out
    assert printed.endswith(f"{names['sample'].text}\n")
    assert len(printed) > len(names["sample"].text) + 10  # sampled digits and more of three others
