"""Pages with a viewer: a list of what a model wrote, and the chosen entry beside it.

What a model wrote is not to be trusted, and there is much of it: it is cut to both ends, packed
(deflated, in base64), and shown as text by `viewer.js`; the page's content security policy lets no
script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Mapping
from typing import TypedDict

from rsp_rl.display.pages import asset, page

HEAD = 1_200
"""Characters kept of a long text's beginning; most answers of small models are not longer."""
TAIL = 1_200
"""Characters kept of its end, where the answer is."""


class Ends(TypedDict):
    """A text as the viewer shows it."""

    head: str
    left_out: int
    """Characters between head and tail."""
    tail: str


def both_ends(text: str) -> Ends:
    """A text, trimmed to beginning and end if it is long."""
    left_out = max(0, len(text) - HEAD - TAIL)
    return {
        "head": text[:HEAD] if left_out else text,
        "left_out": left_out,
        "tail": text[-TAIL:] if left_out else "",
    }


def pack(content: object) -> str:
    """JSON, deflated, in base64: small, and free of anything that HTML could take for markup.

    Raises:
        ValueError: If a number in it is not finite, which a browser's JSON does not know.
    """
    text = json.dumps(content, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def viewer_page(
    title: str,
    body: str,
    *,
    index: object,
    outputs: Mapping[str, str],
    script: str,
    style: str = "",
) -> str:
    """A whole page with a viewer.

    Args:
        title: Plain text.
        body: Markup of the body's elements; text from outside must be escaped in it.
        index: What the list is made of; the script unpacks `index`.
        outputs: Packed entries by key; the script unpacks `outputs-KEY` when one is chosen.
        script: The page's own, which goes on after `viewer.js`.
        style: CSS besides the shared one.
    """
    code = asset("rsp_rl.display", "viewer.js") + script
    blocks = {"index": pack(index), **{f"outputs-{key}": text for key, text in outputs.items()}}
    lines = (
        f'<script type="text/plain" id="{html.escape(name)}">{packed}</script>\n'
        for name, packed in blocks.items()
    )
    # The policy admits the page's own script by its hash, and nothing that got in otherwise.
    script_hash = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return page(
        title,
        f"{body}{''.join(lines)}<script>{code}</script>\n",
        style=style,
        admitted=[f"script-src 'sha256-{script_hash}'"],
    )
