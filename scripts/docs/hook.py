"""A hook of MkDocs: pages that lie outside of docs/, tutorials, and links as GitHub shows them.

Documents are written for both: they lie where they belong in the repository and link to each other
by relative paths. The site needs them in one folder; what it has no page for is a link to the
repository if `repo_url` is set in mkdocs.yml, and its text alone if it is not.
"""

from __future__ import annotations

import itertools
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs import notebooks

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[2]

#: Documents that lie beside what they describe, or are no Markdown, and their pages.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "configs/README.md": "configs.md",
    "recipes/README.md": "recipes.md",
    "scripts/bench/README.md": "cost_scripts.md",
    "scripts/gpu/README.md": "gpu_kit.md",
    **{f"docs/tutorials/{name}.py": f"tutorials/{name}.md" for name in notebooks.NAMES},
}

#: Documents that say to a reader of the repository what a page says to one of the site.
INSTEAD = {"README.md": "docs/index.md", "eval/README.md": "docs/evaluation.md"}

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_CELL = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)
_CODE = re.compile(r"(?<=<code>)[^<]{25,}(?=</code>)")
_FENCE = re.compile(r"^ *```")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the documents of `PAGES`, and the figures beside them."""
    from mkdocs.structure.files import File

    outside = {**PAGES}
    for figure in REPOSITORY.glob("recipes/*.png"):
        path = figure.relative_to(REPOSITORY).as_posix()
        outside[path] = path
    for source, page in outside.items():
        files.append(File.generated(config, page, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """The document as the site's Markdown has it."""
    if (document := Path(_document(page.file.src_uri))).suffix == ".py":
        markdown = notebooks.page(document.stem, markdown, config.repo_url)
    return for_site(markdown, page.file.src_uri, config.repo_url)


def on_page_content(html: str, **_: Any) -> str:
    """Paths and long settings in tables may break behind their separators, so that tables fit."""
    return _CELL.sub(lambda match: _breakable(match[0]), html)


def _breakable(cell: str) -> str:
    return _CODE.sub(lambda match: re.sub(r"(::|[/.,=_])(?=\w)", r"\1<wbr>", match[0]), cell)


def for_site(markdown: str, page: str, repo_url: str | None = None) -> str:
    """A document with its links and lists as the site needs them, code left alone.

    Args:
        markdown: As it lies in the repository.
        page: Its page, by path in the site's sources.
        repo_url: The repository's address, if it has one.
    """
    pieces = [
        (is_code, "".join(line for line, _ in lines))
        for is_code, lines in itertools.groupby(_lines(markdown), key=lambda pair: pair[1])
    ]
    return "".join(text if is_code else _mended(text, page, repo_url) for is_code, text in pieces)


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is in a block of code."""
    code = False
    for line in markdown.splitlines(keepends=True):
        fence = bool(_FENCE.match(line))
        yield line, code or fence
        code ^= fence


def _mended(text: str, page: str, repo_url: str | None) -> str:
    """Lists within lists take four blanks here, and two on GitHub."""
    text = re.sub(r"^ +", r"\g<0>\g<0>", text, flags=re.MULTILINE)
    return _LINK.sub(lambda match: _link(match, page, repo_url), text)


def _link(match: re.Match[str], page: str, repo_url: str | None) -> str:
    mark, text, target = match.groups()
    if re.match(r"\w+:|#", target):
        return match[0]
    path, hash_, anchor = target.partition("#")
    document = _document(page)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(document), path))
    path = INSTEAD.get(path, path)
    there = PAGES.get(path) or _of_docs(path)
    if path.endswith(".png") and not path.startswith("docs/"):
        there = path
    if there is None and not (REPOSITORY / path).exists():
        return match[0]  # for MkDocs to say that it leads nowhere
    if there is None:
        address = repo_url and f"{repo_url.rstrip('/')}/blob/main/{path}{hash_}{anchor}"
        return f"{mark}[{text}]({address})" if address else text
    relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
    return f"{mark}[{text}]({relative}{hash_}{anchor})"


def _document(page: str) -> str:
    """Where a page lies in the repository."""
    return next((path for path, name in PAGES.items() if name == page), f"docs/{page}")


def _of_docs(path: str) -> str | None:
    """A file of docs/ by its path there; a folder is no page."""
    inside = path.removeprefix("docs/")
    return inside if inside != path and (REPOSITORY / path).is_file() else None
