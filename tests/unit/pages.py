"""Pages read back: their elements, texts and scripts, and what a hostile model would write."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from typing import Any

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\u2028-->]]>"


class Page(HTMLParser):
    """Elements and texts of a page; scripts by id, the page's own under `None`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self.text = ""
        self._script: tuple[str | None] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script = (dict(attrs).get("id"),)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script[0]] = data
        else:
            self.text += data

    def unpack(self, block: str) -> Any:
        return json.loads(zlib.decompress(base64.b64decode(self.scripts[block])))
