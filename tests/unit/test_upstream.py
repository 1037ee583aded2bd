"""`docs/upstream.md` lists what we touch of other packages, and it is there as it is listed."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests import upstream
from tests.unit.test_docs import path_is_there, rows_under

DOCUMENT = "docs/upstream.md"
BY_HAND = ("Patches", "Attributes of other objects")
FOUND = {
    "Overrides": upstream.overrides,
    "Attributes of inherited classes": upstream.attributes,
    "Imports": upstream.imports,
}

#: More modules than that are told by their rooms.
MOST_MODULES = 3


@cache
def rows(heading: str) -> dict[str, tuple[str, str, str]]:
    """A table of the document: by symbol how it is touched, by whom, and which test dies."""
    table = rows_under(heading, DOCUMENT)
    found = {symbol.strip("`"): (how, ours, test) for symbol, how, ours, test in table}
    assert len(found) == len(table), f"{heading}: a symbol has two lines"
    return found


def everything() -> Iterator[tuple[str, str, str, str]]:
    for heading in (*BY_HAND, *FOUND):
        yield from ((symbol, *row) for symbol, row in rows(heading).items())


def told(modules: set[str]) -> str:
    """Modules of ours as a line names them."""
    names = sorted(name.removeprefix("rsp_rl.") for name in modules)
    if len(names) <= MOST_MODULES:
        return ", ".join(f"`{name}`" for name in names)
    return "rooms " + ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))


def how(heading: str, symbol: str) -> str:
    """What a line that is found says of a symbol."""
    said = {"Imports": "import", "Attributes of inherited classes": "attribute"}.get(heading)
    if said is None:
        taken = upstream.takes(symbol)
        said = "override property" if taken is None else f"override ({', '.join(taken)})"
    return f"private {said}" if is_private(symbol) else said


def is_private(symbol: str) -> bool:
    parts = symbol.split(".")
    return any(re.match(r"_(?!_)|__ray", part) for part in parts)


def is_installed(symbol: str) -> bool:
    """Whether its package is there; DeepSpeed is an extra."""
    try:
        importlib.import_module(symbol.partition(".")[0])
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("heading", FOUND)
def test_the_list_is_what_is_touched(heading: str) -> None:
    """Both ways; a line that fails is shown as it should be, without its test."""
    expected = {
        symbol: (how(heading, symbol), told(modules))
        for symbol, modules in FOUND[heading]().items()
    }
    listed = {symbol: row[:2] for symbol, row in rows(heading).items()}
    missing = [
        f"| `{s}` | {' | '.join(row)} |" for s, row in expected.items() if listed.get(s) != row
    ]
    left_over = sorted(listed.keys() - expected.keys())
    assert (missing, left_over) == ([], [])


def test_what_is_listed_is_there() -> None:
    listed = [symbol for symbol, *_ in everything() if is_installed(symbol)]
    assert len(listed) > 200
    assert [symbol for symbol in listed if not upstream.exists(symbol)] == []


def test_private_ones_are_marked() -> None:
    wrong = [s for s, said, *_ in everything() if is_private(s) != said.startswith("private")]
    assert wrong == []


def test_no_private_attribute_is_read_unlisted() -> None:
    listed = {(symbol.rpartition(".")[2], ours) for symbol, _, ours, _ in everything()}
    unlisted = [
        (name, module)
        for name, modules in upstream.private_reads().items()
        for module in modules
        if not any(
            name == last and f"`{module.removeprefix('rsp_rl.')}`" in ours for last, ours in listed
        )
    ]
    assert unlisted == []


def test_no_patch_is_unlisted() -> None:
    patches = rows("Patches")
    unlisted = [
        (symbol, module)
        for symbol, modules in upstream.patched().items()
        for module in modules
        if not any(
            name.startswith(f"{symbol}.") and f"`{module.removeprefix('rsp_rl.')}`" in ours
            for name, (_, ours, _) in patches.items()
        )
    ]
    assert unlisted == []


def test_modules_and_tests_of_a_line_exist() -> None:
    known = {name.removeprefix("rsp_rl.") for name in upstream.modules()}
    rooms = {name.partition(".")[0] for name in known}
    for symbol, _, ours, tests in everything():
        if ours.startswith("rooms "):
            assert set(ours.removeprefix("rooms ").split(", ")) <= rooms, symbol
        else:
            assert set(re.findall(r"`([^`]+)`", ours)) <= known, symbol
        named = re.findall(r"`([^`]+)`", tests)
        assert named, symbol
        assert all(path_is_there(path) for path in named), symbol


def _stands_in(ours: Any, theirs: Any) -> str | None:
    """What ours does not take of what callers of theirs may give; None if it takes all."""
    given = list(inspect.signature(theirs).parameters.values())[1:]
    given = [parameter for parameter in given if not parameter.name.startswith("_ray")]
    own = inspect.signature(ours)
    plain = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
    needed = [p for p in plain if p.default is p.empty]
    for kind, arguments, keywords in (
        ("by place", [None] * len(needed), {}),
        ("by name", [], dict.fromkeys(p.name for p in plain)),
    ):
        rest = {p.name: None for p in given if p.kind is p.KEYWORD_ONLY}
        try:
            own.bind(None, *arguments, **keywords, **rest)
        except TypeError as error:
            return f"{kind}: {error}"
    names = [p.name for p in own.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    if names != [p.name for p in plain][: len(names)]:
        return f"names {names}"
    return None


def test_overrides_take_what_upstream_gives() -> None:
    """Whoever calls upstream's method may be calling ours."""
    wrong = {}
    for module, node, kind in upstream.classes():
        for name, ours in vars(kind).items():
            base = next((b for b in kind.__mro__[1:] if name in vars(b)), None)
            if base is None or not upstream.counts(upstream.symbol_of(base)):
                continue
            if not inspect.isfunction(ours) or name.startswith("__"):
                continue
            if fault := _stands_in(ours, inspect.unwrap(vars(base)[name])):
                wrong[f"{module}.{node.name}.{name}"] = fault
    assert wrong == {}


@pytest.mark.parametrize(
    ("ours", "theirs", "fits"),
    [
        ("self, a, *args, **kwargs", "self, a, b=1, *, c=2", True),
        ("self, a, b=None", "self, a, b=1", True),
        ("self, a", "self, a, b=1", False),
        ("self, b, a", "self, a, b", False),
        ("self, a, *args", "self, a, *, c=2", False),
        ("self, x, **kwargs", "self, a", False),
    ],
)
def test_an_override_that_does_not_fit_is_seen(ours: str, theirs: str, fits: bool) -> None:
    made = [eval(f"lambda {names}: None") for names in (ours, theirs)]
    assert (_stands_in(*made) is None) == fits


def test_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import torch
from torch.distributed.tensor import DTensor
from verl.utils import distributed
def later():
    from vllm.v1.engine.async_llm import AsyncLLM as Engine
    Engine.generate = later
    Engine.table["key"] = later
    distributed.start.later = later
    setattr(DTensor, "name", later)
    own._hidden = torch._inner(thing._theirs)
NAME, GROUP, SETTING = "vllm.v1.worker", "verl.plugins", "vllm.Some setting"
"""
    monkeypatch.setattr(upstream, "modules", lambda: {"rsp_rl.made": ast.parse(source)})
    engine = "vllm.v1.engine.async_llm.AsyncLLM"
    tensor = "torch.distributed.tensor.DTensor"
    touched = {engine, tensor, "verl.utils.distributed"}
    assert upstream.imports().keys() == touched | {"vllm.v1.worker"}
    assert upstream.patched().keys() == touched
    assert upstream.private_reads().keys() == {"_hidden", "_inner", "_theirs"}


@pytest.mark.parametrize(
    ("symbol", "there"),
    [
        ("verl.workers.rollout.base._ROLLOUT_REGISTRY", True),
        ("verl.trainer.ppo.v1.trainer_base.PPOTrainer.replay_buffer", True),  # of instances
        ("verl.trainer.ppo.v1.trainer_base.PPOTrainer.no_such", False),
        ("verl.no_such_module.Name", False),
        ("verl.utils.no_such", False),
    ],
)
def test_what_is_not_there_is_seen(symbol: str, there: bool) -> None:
    assert upstream.exists(symbol) == there
