"""Every message that docs/troubleshooting.md quotes is the code's, word by word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def said_by(source: str) -> Iterator[str]:
    """Texts of a module in which words stand, with `…` for what is filled in."""
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [part.value if isinstance(part, ast.Constant) else "…" for part in parts]
        if isinstance(node, ast.JoinedStr | ast.Constant) and all(
            isinstance(text, str) for text in texts
        ):
            yield " ".join("".join(texts).split())


def said_by_script(source: str) -> str:
    """A shell script's text, likewise; lines that go on and texts side by side are one."""
    joined = re.sub(r'"? ?\\\n *"?', " ", source)
    return " ".join(re.sub(r"\$\{?\w+(?:\[\*\])?\}?", "…", joined).split())


@cache
def everything_said() -> str:
    """All that our code may say, a text a line."""
    code = (REPOSITORY / "rsp_rl").rglob("*.py")
    texts = [text for file in code for text in said_by(file.read_text())]
    scripts = (REPOSITORY / "scripts").glob("*.sh")
    return "\n".join([*texts, *(said_by_script(file.read_text()) for file in scripts)])


QUOTED = re.findall(
    r"^```text\n(.*?)^```$",
    (REPOSITORY / "docs" / "troubleshooting.md").read_text(),
    re.DOTALL | re.MULTILINE,
)


def test_troubleshooting_quotes_messages() -> None:
    assert len(QUOTED) > 40


@pytest.mark.parametrize("message", QUOTED, ids=lambda message: message.strip()[:50])
def test_a_message_of_troubleshooting_is_the_codes(message: str) -> None:
    assert " ".join(message.split()) in everything_said()


def test_what_code_says_is_read_as_the_page_quotes_it() -> None:
    made = 'def f(x):\n    raise E(\n        f"{x} is no "\n        f"number; {x!r:.3} is"\n    )'
    assert "… is no number; … is" in [*said_by(made)]
    script = 'die "no $THING of ${ALL[*]}," \\\n  "as said"'
    assert "no … of …, as said" in said_by_script(script)
