"""Pages that open from disk: one head for all, which admits nothing from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib import resources
from string import Template


def page(title: str, body: str, *, style: str = "", admitted: Iterable[str] = ()) -> str:
    """A whole page, in this package's style.

    Args:
        title: Plain text.
        body: Markup of the body's elements; text from outside must be escaped in it.
        style: CSS besides `page.css`.
        admitted: What its content security policy admits besides inline styles, a directive each.
    """
    return Template(asset("rsp_rl.display", "page.html")).substitute(
        title=html.escape(title),
        admitted="".join(f"{directive}; " for directive in admitted),
        style=asset("rsp_rl.display", "page.css"),
        own_style=style,
        body=body,
    )


def asset(package: str, name: str) -> str:
    """Text of a file that lies beside a package's modules."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
