"""The documentation site: pages made from the code, links as the site needs them, the link check.

The site itself is built by `scripts/docs.sh`, a stage of `scripts/test.sh`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from docs.commands import described
from docs.docstrings import parse, table
from docs.hook import INSTEAD, PAGES, for_site, on_page_content
from docs.links import check
from docs.options import _of_file
from docs.reference import DOCS
from docs.reference import PAGES as MADE
from rsp_rl.dials.options import RspOptions

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", MADE)
def test_a_page_is_what_the_code_gives(name: str) -> None:
    made = (DOCS / name).read_text()
    assert made == MADE[name](), "write it anew: python scripts/docs/reference.py"


def test_every_option_is_on_its_page() -> None:
    page = (DOCS / "options.md").read_text()
    names = [name for name, _ in parse(RspOptions).entries["Attributes"]]
    assert len(names) > 10
    assert [name for name in names if f"`rsp.{name}" not in page] == []
    assert "|  |  |" not in re.sub(r"^\| `.*", "", page, flags=re.MULTILINE)


def test_a_text_of_several_lines_is_no_setting(tmp_path: Path) -> None:
    file = tmp_path / "group" / "some.yaml"
    file.parent.mkdir()
    file.write_text("# About it.\na:\n  # A text.\n  b: >-\n    User: x\n\n    c: 1\n  d: 2\n")
    page = _of_file(file)
    assert page.startswith("About it.\n")
    assert [line.split("|")[1:4] for line in page.splitlines()[4:]] == [
        [" `group.a.b` ", " `(a text)` ", " A text. "],
        [" `group.a.d` ", " `2` ", "  "],
    ]


def test_every_document_has_a_place_in_the_site() -> None:
    """By name; MkDocs itself, which is not in this environment, says the same when it builds."""
    nav = (REPOSITORY / "mkdocs.yml").read_text().split("\nnav:\n")[1].split("\n\n")[0]
    named = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)
    assert len(named) == len(set(named))
    own = {file.name for file in DOCS.glob("*.md")}
    assert set(named) == own | set(PAGES.values())
    elsewhere = {*PAGES, *INSTEAD}
    beside = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    outside = {file for file in beside if not file.startswith("docs/")}
    assert outside - elsewhere == set()


@pytest.mark.parametrize(
    ("line", "page", "wanted"),
    [
        ("[a](gpu.md#b)", "index.md", "[a](gpu.md#b)"),
        ("[a](#b)", "index.md", "[a](#b)"),
        ("[a](https://arxiv.org)", "index.md", "[a](https://arxiv.org)"),
        ("[a](../recipes/README.md#b)", "index.md", "[a](recipes.md#b)"),
        ("[a](../README.md)", "gpu.md", "[a](index.md)"),
        ("[a](../eval/README.md)", "gpu.md", "[a](evaluation.md)"),
        ("[a](../docs/gpu.md)", "recipes.md", "[a](gpu.md)"),
        ("[a](../../docs/gpu.md)", "gpu_kit.md", "[a](gpu.md)"),
        ("[a](docs/gpu.md)", "changelog.md", "[a](gpu.md)"),
        ("[a](../CHANGELOG.md)", "index.md", "[a](changelog.md)"),
        ("![a](../recipes/dapo_rsp_tiny_cpu.png)", "x.md", "![a](recipes/dapo_rsp_tiny_cpu.png)"),
        ("![a](images/data_flow.svg)", "index.md", "![a](images/data_flow.svg)"),
        ("see [`a`](../rsp_rl/cli.py), b", "index.md", "see `a`, b"),
        ("[the data](results/smollm2-135m)", "real_model.md", "the data"),
        ("[a\nb](../eval/README.md)", "gpu.md", "[a\nb](evaluation.md)"),
        ("[a](gone.md)", "index.md", "[a](gone.md)"),
        ("[a](../gone.py)", "index.md", "[a](../gone.py)"),
        ("- a\n  - b\n    c", "index.md", "- a\n    - b\n        c"),
        ("```\n  [a](../x)\n```\n", "index.md", "```\n  [a](../x)\n```\n"),
    ],
)
def test_documents_become_pages(line: str, page: str, wanted: str) -> None:
    assert for_site(line, page) == wanted


def test_long_code_in_a_table_may_break() -> None:
    path = "rsp_rl/training/verl_plugin/trainer.py"
    html = f"<p><code>{path}</code></p><td>a <code>b/c</code> <code>{path}</code></td>"
    broken = "rsp_<wbr>rl/<wbr>training/<wbr>verl_<wbr>plugin/<wbr>trainer.<wbr>py"
    wanted = f"<p><code>{path}</code></p><td>a <code>b/c</code> <code>{broken}</code></td>"
    assert on_page_content(html) == wanted


def test_a_repository_with_an_address_is_linked_to() -> None:
    made = for_site("[a](../rsp_rl/cli.py)", "index.md", "https://example.org/rsp_rl/")
    assert made == "[a](https://example.org/rsp_rl/blob/main/rsp_rl/cli.py)"


def test_wrong_links_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">b</a><a href="#top">up</a>'
        '<a href="https://arxiv.org">out</a><img src="data:image/png;base64,">'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="a.html">a</a>')
    assert check(tmp_path) == ([], 3, 2)
    (tmp_path / "c.html").write_text(
        '<a href="d.html">x</a><a href="b.html#gone">x</a>'
        '<script src="https://cdn.example.org/x.js"></script>'
    )
    wrong, _, _ = check(tmp_path)
    assert wrong == [
        "c.html: no file for d.html",
        "c.html: no anchor for b.html#gone",
        "c.html: loads https://cdn.example.org/x.js",
    ]


def test_docstrings_are_read() -> None:
    def example() -> None:
        """Does it.

        More of <it>, `a < b`.

        Args:
            one: First
                line.
            two: Second.

        Returns:
            What it
            is.
        """

    read = parse(example)
    assert read.first == "Does it."
    assert read.text.endswith("More of &lt;it>, `a < b`.")
    assert read.entries == {
        "Args": [("one", "First line."), ("two", "Second.")],
        "Returns": [("", "What it is.")],
    }


def test_indented_lines_of_a_description_are_code() -> None:
    said = described("It is <one>:\n\n  run a\n      --b\n\nDone.\n")
    assert said == "It is &lt;one>:\n\n```\nrun a\n    --b\n```\n\nDone."


def test_a_bar_does_not_end_a_cell() -> None:
    assert table(["a"], [["|x|"]]).splitlines()[-1] == "| &#124;x&#124; |"
