"""Write the pages of docs/ that are made from the code, and the tutorials' notebooks.

    python scripts/docs/reference.py

They are committed, so that they can be read without building anything;
`tests/unit/scripts/test_docs_site.py` fails where one is not what the code gives.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from docs import api, commands, notebooks, options

DOCS = Path(__file__).resolve().parents[2] / "docs"

#: By file name.
PAGES: dict[str, Callable[[], str]] = {
    "options.md": options.page,
    "commands.md": commands.page,
    "api.md": api.page,
    **{f"tutorials/{name}.ipynb": partial(notebooks.notebook, name) for name in notebooks.NAMES},
}


def main() -> None:
    """Write all of them."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
