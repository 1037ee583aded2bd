"""The page of options: every setting of ours, with its default, from the code that checks it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from docs.docstrings import code, parse, table
from rsp_rl.basics.package_files import CONFIGS, PROTOCOLS
from rsp_rl.data.templates import TEMPLATES
from rsp_rl.dials.options import RspOptions
from rsp_rl.draws.laws import LAWS as DRAW_LAWS
from rsp_rl.evaluation.protocol import BenchmarkPlan, Protocol
from rsp_rl.inference.requests import EngineOptions
from rsp_rl.latent.ccot.settings import CcotSettings
from rsp_rl.latent.settings import Settings as LatentSettings
from rsp_rl.thoughts.names import LAWS
from rsp_rl.thoughts.settings import COMPAT, ThoughtSettings
from rsp_rl.training.thought_options import ThoughtOptions

#: Groups of config files; `rsp` is above, option by option.
GROUPS = ("objective", "machine", "law", "correction", "rollout", "precision", "memory", "prompt")

_KEY = re.compile(r"^( *)([\w.]+):(?: +(.*))?$")
_BLOCK = re.compile(r"[>|][+-]?")


def page() -> str:
    """The whole page."""
    names = ", ".join
    parts = [
        "Every setting of ours with its default, made from the code that checks it"
        " (`python scripts/docs/reference.py`). In a training they are Hydra overrides behind a"
        " command or a recipe, `rsp.length=20`; everything else there is verl's own. What each is"
        " for: [RSP in your own run](your_own_run.md), [continuous tokens](continuous_tokens.md),"
        " [evaluation](evaluation.md). A setting that does not exist, or a value out of range, is"
        " one error before anything starts.",
        "## Soft prompts: `rsp`",
        _fields(RspOptions, "rsp."),
        f"Laws of `rsp.law`: {names(f'`{law}`' for law in DRAW_LAWS)}.",
        "## Thoughts: `law`",
        "In a training the law is chosen as a config group, `law=multiplex`; in a protocol or an"
        " evaluation as `law.name=multiplex`; with `rsp-rl generate` as `--law multiplex`. Phases,"
        " of every law:",
        _fields(ThoughtSettings, "law.", leave_out=("law",)),
        f"Names for `law.compat`: {names(f'`{name}`' for name in COMPAT)}.",
        "In a training also:",
        _fields(ThoughtOptions, "law.", leave_out=("settings",)),
        "And each law's own; those of the filters (`temperature`, `top_k`, `top_p`, `min_p`) are"
        " the thoughts', not the answer's:",
        *_laws(),
        "## Evaluations: a protocol",
        "A file in `eval/protocols` or your own; `key=value` behind `rsp-rl eval` overrides it.",
        _fields(Protocol, ""),
        "Of each benchmark, under `benchmarks.NAME`, and of all under `sampling`:",
        _fields(BenchmarkPlan, "", leave_out=("benchmark",)),
        f"Templates: {names(f'`{name}`' for name in TEMPLATES)}. Protocols that are there:"
        f" {names(f'`{file.stem}`' for file in sorted(PROTOCOLS.glob('*.yaml')))}.",
        "## Engines",
        "Of every command that generates, as `--tensor-parallel 2`; `kind` is `--engine`. In Python"
        " `rsp_rl.inference.requests.EngineOptions`.",
        _fields(EngineOptions, ""),
        "## Latent reasoning",
        "Of `rsp-rl latent train`, as `--max-stage 6`; `--preset` has the paper's values where they"
        " differ from these defaults ([all flags](commands.md#rsp-rl-latent-train)).",
        _fields(LatentSettings, ""),
        "CCOT's, of `rsp-rl latent ccot train` ([flags](commands.md#rsp-rl-latent-ccot-train)):",
        _fields(CcotSettings, ""),
        "## Config files",
        "What the files in `configs/` set, in verl's options and ours, with what they say of it. A"
        " group that no primary config names is added as `+GROUP=NAME`.",
        *_config_files(),
    ]
    return "# Options\n\n" + "\n\n".join(parts) + "\n"


def _fields(kind: type, prefix: str, *, leave_out: tuple[str, ...] = ()) -> str:
    rows = [row for row in _rows(kind, prefix) if row[0].removeprefix(prefix) not in leave_out]
    return table(["setting", "default", "what"], [(code(n), d, w) for n, d, w in rows])


def _rows(kind: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Name, default and description; options that are groups, option by option."""
    said = dict(parse(kind).entries.get("Attributes", []))
    for option in dataclasses.fields(kind):
        default = option.default
        if option.default_factory is not dataclasses.MISSING:
            default = option.default_factory()
        name = f"{prefix}{option.name}"
        if dataclasses.is_dataclass(default) and type(default) is not kind and prefix:
            if (what := said[option.name]) and not what.startswith("See "):
                yield name, "", what
            yield from _rows(type(default), f"{name}.")
        else:
            yield name, _default(default), said.get(option.name, _inherited(kind, option.name))


def _inherited(kind: type, name: str) -> str:
    """What a base class says of it."""
    for base in kind.__mro__[1:]:
        if what := dict(parse(base).entries.get("Attributes", [])).get(name):
            return what
    return ""


def _default(value: object) -> str:
    if value is dataclasses.MISSING:
        return "needed"
    if dataclasses.is_dataclass(value):
        return "off"
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple):
        return code(f"[{', '.join(map(str, value))}]")
    return code(value) if value != "" else '`""`'


def _laws() -> Iterator[str]:
    for name, kind in LAWS.items():
        yield f"### `{name}`"
        yield parse(kind).first
        yield _fields(kind, "law.")


def _config_files() -> Iterator[str]:
    for file in sorted(CONFIGS.glob("*.yaml")):
        yield f"### `{file.name}`"
        yield _of_file(file)
    for group in GROUPS:
        for file in sorted((CONFIGS / group).glob("*.yaml")):
            yield f"### `{group}/{file.name}`"
            yield _of_file(file)


def _of_file(file: Path) -> str:
    """Its first comment, and its settings with what stands above each."""
    text = file.read_text()
    own = file.parent == CONFIGS or "# @package _global_" in text
    prefix = "" if own else f"{file.parent.name}."
    about, rows = _settings(text)
    listed = table(
        ["setting", "value", "what"], [(code(prefix + n), code(v), w) for n, v, w in rows]
    )
    return f"{about}\n\n{listed}" if rows else about


def _settings(text: str) -> tuple[str, list[tuple[str, str, str]]]:
    """A config file's comment, and its settings: name, value, comment."""
    rows, path, said, about = [], [], [], ""
    block: int | None = None  # how deep the setting stands that a text of several lines is of
    for line in text.splitlines():
        if block is not None and (not line.strip() or len(line) - len(line.lstrip()) > block):
            continue
        block = None
        if line.lstrip().startswith("#"):
            words = line.lstrip("# ")
            if not words.startswith("@package"):
                said.append(words)
            continue
        if not about:  # the file's own, above its first setting
            about, said = " ".join(said), []
        if match := _KEY.match(line):
            indent, name, value = len(match[1]), match[2], match[3]
            path = [(i, n) for i, n in path if i < indent] + [(indent, name)]
            if value is not None and _BLOCK.fullmatch(value):
                block, value = indent, "(a text)"
            if value is not None and path[0][1] not in ("defaults", "hydra"):
                rows.append((".".join(n for _, n in path), value, " ".join(said)))
                said = []
        elif not line.strip():
            said = []
    return about, rows
