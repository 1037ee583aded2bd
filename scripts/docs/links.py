"""Every link of a built site leads to a file and an anchor that are there, and nothing is fetched.

    python scripts/docs/links.py site

Links to other sites are counted, not followed: what they hold is not ours to test.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Attributes that name something, by tag; what a page loads by itself is among `LOADED`.
NAMES = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "src"}
LOADED = ("link", "img", "script", "source")


@dataclass
class Document(HTMLParser):
    """What a page links to, and its anchors.

    Attributes:
        links: Pairs of tag and target.
        anchors: Ids of its elements.
    """

    links: list[tuple[str, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(values["id"])
        target = values.get(NAMES.get(tag, ""))
        if target and values.get("rel") != "canonical":
            self.links.append((tag, target))


def read(file: Path) -> Document:
    """A page, parsed."""
    document = Document()
    document.feed(file.read_text())
    return document


def check(site: Path) -> tuple[list[str], int, int]:
    """All pages of a site.

    Returns:
        What is wrong, a line each; how many links lead within the site; and how many out of it.
    """
    pages = {file.resolve(): read(file) for file in sorted(site.rglob("*.html"))}
    wrong, inner, outer = [], 0, 0
    for file, page in pages.items():
        where = file.relative_to(site.resolve())
        for tag, target in page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                outer += 1
                if tag in LOADED and parts.scheme != "data":
                    wrong.append(f"{where}: loads {target}")
                continue
            inner += 1
            # A page that is shown for any missing address has absolute links.
            base = site.resolve() if parts.path.startswith("/") else file.parent
            path = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
            path = path / "index.html" if path.is_dir() else path
            if not path.is_file():
                wrong.append(f"{where}: no file for {target}")
            elif parts.fragment and path in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[path].anchors and not anchor.startswith("__"):
                    wrong.append(f"{where}: no anchor for {target}")
    return wrong, inner, outer


def main() -> int:
    """Print what is wrong; the exit status says whether anything is."""
    [site] = map(Path, sys.argv[1:])
    wrong, inner, outer = check(site)
    for line in wrong:
        print(f"docs: {line}", file=sys.stderr)
    pages = len([*site.rglob("*.html")])
    print(f"docs: {pages} pages, {inner} links within them checked, {outer} to other sites not")
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
