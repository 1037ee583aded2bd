"""The tutorials: their cells, what they import, and that notebooks and pages say the same.

That they run is `tests/integration/test_tutorials.py`'s.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator

import pytest

from docs.api import NAMES as PUBLIC
from docs.hook import PAGES, for_site
from docs.notebooks import FOLDER, INSTALL, NAMES, Cell, cells, notebook, page


def script(name: str) -> str:
    return (FOLDER / f"{name}.py").read_text()


def code(name: str) -> list[str]:
    return [cell.text for cell in cells(script(name)) if cell.kind == "code"]


def imports(tree: ast.AST) -> Iterator[str]:
    """What a program imports of ours, as `module:name`; programs in its texts too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "rsp_rl":
            yield from (f"{node.module}:{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("rsp_rl"))
        elif isinstance(node, ast.Constant) and "from rsp_rl" in str(node.value):
            yield from imports(ast.parse(node.value))


def test_the_list_names_them_all() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == {*NAMES}
    assert {file.stem for file in FOLDER.glob("*.ipynb")} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_text_and_code(name: str) -> None:
    first, *rest = cells(script(name))
    assert first.kind == "markdown"
    assert re.match(r"# \w.*\n\n\w", first.text)
    assert {cell.kind for cell in rest} == {"markdown", "code"}
    assert all(cell.text.strip() for cell in rest)
    for text in code(name):
        ast.parse(text)
        assert "# %%" not in text


@pytest.mark.parametrize("name", NAMES)
def test_what_they_import_is_promised(name: str) -> None:
    """And needs no edit when something else moves."""
    found = [*imports(ast.parse(script(name)))]
    promised = {name for group in PUBLIC.values() for name in group}
    assert found
    assert [what for what in found if what not in promised] == []


def test_the_law_of_the_tutorial_is_short() -> None:
    [law] = re.findall(r"'''\n(.*?)'''", script("own_law"), re.DOTALL)
    assert "rsp_rl.draws.law:Law" in imports(ast.parse(law))
    assert len(law.splitlines()) <= 20


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_and_pages_have_the_scripts_cells(name: str) -> None:
    made = json.loads(notebook(name))
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])
    assert all(re.fullmatch(r"[\w-]{1,64}", cell["id"]) for cell in made["cells"])
    assert all(cell.get("outputs", []) == [] for cell in made["cells"])
    of_notebook = ["".join(c["source"]) for c in made["cells"] if c["cell_type"] == "code"]
    of_page = re.findall(r"^```python\n(.*?)\n```$", page(name, script(name)), re.DOTALL | re.M)
    assert of_notebook == [INSTALL, *code(name)]
    assert of_page == code(name)
    texts = ["".join(c["source"]) for c in made["cells"] if c["cell_type"] == "markdown"]
    assert len(texts) + len(of_page) == len(cells(script(name)))


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """In the script to scripts, in the notebook to notebooks, on the page to pages."""
    pages = {*PAGES.values()}
    for text, others in (
        (script(name), ".py"),
        ("".join(c for cell in json.loads(notebook(name))["cells"] for c in cell["source"]), ""),
    ):
        targets = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text)]
        assert len(targets) > 0
        assert [target for target in targets if not (FOLDER / target).is_file()] == []
        assert all(target.endswith((others, ".md")) for target in targets)
    shown = for_site(page(name, script(name)), f"tutorials/{name}.md")
    for link in re.findall(r"\]\(([^)]+)\)", shown):
        target = link.partition("#")[0]
        there = f"tutorials/{target}" in pages or (FOLDER / target).is_file()
        assert there, target
        assert not target.endswith(".py")


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        (None, "As a notebook: [train.ipynb](train.ipynb)."),
        ("https://example.org/a/b", "As a notebook: [train.ipynb](train.ipynb)."),
        (
            "https://github.com/a/b/",
            "As a notebook: [train.ipynb](train.ipynb), [in Colab](https://colab.research.google"
            ".com/github/a/b/blob/main/docs/tutorials/train.ipynb).",
        ),
    ],
)
def test_colab_opens_what_github_has(address: str | None, opened: str) -> None:
    assert page("train", script("train"), address).split("\n\n")[1] == opened


def test_cells_are_read() -> None:
    text = "# %% [markdown]\n# # A\n#\n# b\n\n# %%\nx = 1\n\n\ny = 2\n\n# %%\nz\n"
    assert cells(text) == [
        Cell("markdown", "# A\n\nb"),
        Cell("code", "x = 1\n\n\ny = 2"),
        Cell("code", "z"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n# %%\n", "before the first cell: 'x = 1'"),
        ("# %% [markdown]\n# a\nb\n", "no comment in a cell of text: 'b'"),
        ("# %% [markdown]\n# a\n# %% [raw]\n# b\n", r"no head of a cell: '# %% \[raw\]'"),
    ],
)
def test_what_is_no_tutorial_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cells(text)
