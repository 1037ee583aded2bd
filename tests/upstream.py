"""What rsp_rl touches of other packages' code, read from its source and from its loaded classes.

For `tests/unit/test_upstream.py`, which holds `docs/upstream.md` against it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import rsp_rl

PACKAGE = Path(rsp_rl.__file__).parent

#: Packages whose every imported name counts; of torch, names below these.
PACKAGES = ("verl", "vllm", "transformers", "ray", "tensordict", "transfer_queue", "deepspeed")
TORCH = ("torch.distributed", "torch.utils")

#: Entry point groups, which are no modules.
GROUPS = ("verl.plugins", "vllm.general_plugins")
_MODULE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")

#: Private attributes that are Python's own, or documented.
_KEPT = ("_SubParsersAction", "_ActionsContainer", "_exit", "_current_frames", "__ray_ready__")

#: Dunder methods that take arguments of the package's choice.
_DUNDERS = ("__init__", "__new__", "__call__")

Uses = dict[str, set[str]]
"""By symbol, the modules of ours that touch it."""


@cache
def modules() -> dict[str, ast.Module]:
    """Sources of ours by dotted name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text(), str(file))
    return found


def counts(symbol: str) -> bool:
    """Whether a dotted name is one of another package that is listed."""
    return symbol.partition(".")[0] in PACKAGES or f"{symbol}.".startswith(
        tuple(f"{name}." for name in TORCH)
    )


def imported(module: ast.Module) -> list[tuple[str, str]]:
    """What a module imports, wherever in it: the name it has there, and the dotted symbol."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found += [(alias.asname or alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            own = [(alias.asname or alias.name, alias.name) for alias in node.names]
            found += [(local, f"{node.module}.{name}") for local, name in own]
    return found


def imports() -> Uses:
    """Symbols that are imported, or named as text where something else imports them."""
    uses: Uses = defaultdict(set)
    for name, module in modules().items():
        named = [
            node.value
            for node in ast.walk(module)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = [text for text in named if _MODULE.fullmatch(text) and text not in GROUPS]
        for symbol in [*(symbol for _, symbol in imported(module)), *named]:
            if counts(symbol):
                uses[symbol].add(name)
    return dict(uses)


def resolve(symbol: str) -> Any:
    """The object of a dotted name.

    Raises:
        AttributeError: If there is none.
    """
    parts = symbol.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if not error.name or not f"{symbol}.".startswith(f"{error.name}."):
                raise
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(f"no module of {symbol}")


def classes() -> Iterator[tuple[str, ast.ClassDef, type]]:
    """Our classes that inherit from another package's, with the modules they are in."""
    for name, module in modules().items():
        nodes = [node for node in module.body if isinstance(node, ast.ClassDef) and node.bases]
        symbols = [symbol for _, symbol in imported(module)]
        if not nodes or not any(counts(s) or s.startswith("rsp_rl.") for s in symbols):
            continue
        try:
            loaded = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and not error.name.startswith("rsp_rl"):
                continue  # an optional package
            raise
        for node in nodes:
            made = getattr(loaded, node.name)
            made = getattr(made, "__ray_actor_class__", made)  # Ray's decorator
            if isinstance(made, type) and any(counts(symbol_of(base)) for base in made.__mro__):
                yield name, node, made


def symbol_of(kind: type) -> str:
    """A class's dotted name where it is defined."""
    return f"{kind.__module__}.{kind.__qualname__}"


def owner(kind: type, name: str) -> type | None:
    """The class of another package that an attribute of ours overrides or comes from."""
    for base in kind.__mro__:
        if counts(symbol_of(base)) and (name in vars(base) or name in assigned(base)):
            return base
    return None


@cache
def assigned(kind: type) -> frozenset[str]:
    """Attributes that a class gives to `self` or declares."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return frozenset()
    found = set(vars(kind).get("__annotations__", ()))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _on_self(node):
            found.add(node.attr)
    return frozenset(found)


def _on_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


@cache
def overrides() -> Uses:
    """Methods and properties of ours that another package's class has."""
    uses: Uses = defaultdict(set)
    for module, node, kind in classes():
        for item in node.body:
            if not isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if item.name.startswith("__") and item.name not in _DUNDERS:
                continue
            if base := owner(kind, item.name):
                uses[f"{symbol_of(base)}.{item.name}"].add(module)
    return dict(uses)


def attributes() -> Uses:
    """Attributes of `self` and `super()` that are another package's, but no overrides."""
    uses: Uses = defaultdict(set)
    made = overrides()
    for module, node, kind in classes():
        for part in ast.walk(node):
            if not isinstance(part, ast.Attribute):
                continue
            on_super = (
                isinstance(part.value, ast.Call)
                and isinstance(part.value.func, ast.Name)
                and part.value.func.id == "super"
            )
            if not (_on_self(part) or on_super) or part.attr.startswith("__"):
                continue
            if (base := owner(kind, part.attr)) is None:
                continue
            symbol = f"{symbol_of(base)}.{part.attr}"
            if symbol not in made:
                uses[symbol].add(module)
    return dict(uses)


def private_reads() -> Uses:
    """Private attributes that are nobody's of ours, by their last name."""
    own = set()
    for module in modules().values():
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                    own.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
    uses: Uses = defaultdict(set)
    for name, module in modules().items():
        for node in ast.walk(module):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
                continue
            python = node.attr.startswith("__") and not node.attr.startswith("__ray")
            if node.attr not in own and node.attr not in _KEPT and not python:
                uses[node.attr].add(name)
    return dict(uses)


def patched() -> Uses:
    """Imported names of which an attribute or an entry is set: where a patch is made."""
    uses: Uses = defaultdict(set)
    for name, module in modules().items():
        locals_: dict[str, set[str]] = defaultdict(set)
        for local, symbol in imported(module):
            if counts(symbol):
                locals_[local].add(symbol)
        for node in ast.walk(module):
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AugAssign | ast.AnnAssign):
                targets = [node.target]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                targets = [ast.Attribute(node.args[0], "")] if node.func.id == "setattr" else []
            for target in targets:
                place = target
                while isinstance(place, ast.Attribute | ast.Subscript):
                    place = place.value
                if place is not target and isinstance(place, ast.Name):
                    for symbol in locals_.get(place.id, ()):
                        uses[symbol].add(name)
    return dict(uses)


def exists(symbol: str) -> bool:
    """Whether a dotted name is there; of a class also what its instances have."""
    try:
        resolve(symbol)
        return True
    except AttributeError:
        holder, _, name = symbol.rpartition(".")
        try:
            kind = resolve(holder)
        except AttributeError:
            return False
        return isinstance(kind, type) and any(name in assigned(base) for base in kind.__mro__)


def takes(symbol: str) -> tuple[str, ...] | None:
    """Names of what a method takes, `self` left out; None of a property."""
    found = resolve(symbol)
    if isinstance(found, property | cached_property):
        return None
    names = tuple(inspect.signature(inspect.unwrap(found)).parameters)[1:]
    return tuple(name for name in names if not name.startswith("_ray"))  # of its tracing
