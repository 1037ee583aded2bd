"""The page of commands: what each takes, from its own parser."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module

from docs.docstrings import code, markdown, table
from rsp_rl.cli import COMMANDS

#: Of the one command whose parser is Hydra's.
TRAIN = (
    "```\nrsp-rl train --config-name NAME [key=value ...]\n```",
    "`--config-name` is a file in `configs/` (`dapo_rsp`, `dapo`, `tiny_cpu`, `real_cpu`);"
    " overrides are verl's options and [ours](options.md). `python -m rsp_rl.training.dry_run` in"
    " place of `rsp-rl train` checks and tells what the run would be.",
)


def page() -> str:
    """The whole page."""
    parts = [
        "What `rsp-rl` takes, made from its own parsers (`python scripts/docs/reference.py`);"
        " `rsp-rl COMMAND --help` says the same. It is `.venv/bin/rsp-rl`, or plainly `rsp-rl`"
        " after `source .venv/bin/activate`.",
        table(["command", "what"], [(code(name), line) for name, (_, line) in COMMANDS.items()]),
    ]
    for name, (module, line) in COMMANDS.items():
        parts.append(f"## rsp-rl {name}")
        if name == "train":
            parts += [*TRAIN]
            continue
        root = argparse.ArgumentParser(prog="rsp-rl")
        group = root.add_subparsers()
        import_module(module).add_parser(group)
        parts += _command(group.choices[name], name, line)
    return "# Commands\n\n" + "\n\n".join(parts) + "\n"


def _command(parser: argparse.ArgumentParser, name: str, line: str) -> Iterator[str]:
    if said := described(parser.description or ""):
        yield said
    rows = []
    inner: dict[str, argparse.ArgumentParser] = {}
    lines: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner |= action.choices
            lines |= {choice.dest: choice.help or "" for choice in action._choices_actions}
        elif not isinstance(action, argparse._HelpAction):
            rows.append(_row(parser, action))
    if rows:
        yield table(["argument", "what"], rows)
    if not said and not rows:
        yield f"{markdown(line[:1].upper() + line[1:])}."
    for part, child in inner.items():
        yield f"### rsp-rl {name} {part}"
        yield from _command(child, f"{name} {part}", lines.get(part, ""))


def _is_told(default: object) -> bool:
    """Whether a default says something: not that a flag is off, nor that nothing is given."""
    return isinstance(default, str | int | float) and not isinstance(default, bool)


def described(text: str) -> str:
    """A description; lines that are indented are code."""
    paragraphs = re.split(r"\n{2,}", text.strip("\n"))
    return "\n\n".join(
        f"```\n{textwrap.dedent(paragraph)}\n```"
        if all(line.startswith("  ") for line in paragraph.splitlines())
        else markdown(paragraph)
        for paragraph in paragraphs
        if paragraph.strip()
    )


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    formatter = parser._get_formatter()
    what = markdown(formatter._expand_help(action) if action.help else "")
    if action.choices is not None and not all(str(c) in what for c in action.choices):
        named = ", ".join(code(choice) for choice in action.choices)
        what = f"{what} ({named})" if what else named
    if _is_told(action.default) and "default" not in what:
        what = f"{what} (default: {code(action.default)})".strip()
    if action.required and action.option_strings:
        what = f"needed: {what}"
    return code(", ".join(action.option_strings) or (action.metavar or action.dest).upper()), what
