"""The rooms of the package, in their order: an import goes down, or stays, and never in a circle.

Read from the source of every module, imports inside functions and for type checkers included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import rsp_rl

PACKAGE = Path(rsp_rl.__file__).parent
UNIT_TESTS = Path(__file__).parent

#: From low to high, along the data's way.
ROOMS = (
    "basics",
    "console",
    "display",
    "grading",
    "draws",
    "placement",
    "dials",
    "thoughts",
    "injection",
    "data",
    "models",
    "runs",
    "tiny",
    "training",
    "inference",
    "comparators",
    "latent",
    "evaluation",
    "analysis",
    "reproduce",
    "commands",
    "cli",
)

#: All that may lie at the top of the package beside the rooms.
TOP_FILES = {"__init__.py", "cli.py", "py.typed"}

#: Who may import these, a room or a module; the others work without them. The law, placement and
#: dials know neither, and of the injection only vLLM's own side knows vLLM.
KNOWN_TO = {
    "verl": {"training", "evaluation.trained_run"},
    "vllm": {
        "injection.thinking_engine",
        "injection.thinking_prompt",
        "injection.thinking_runner",
        "injection.thinking_runner_v1",
        "injection.thinking_runner_v2",
        "injection.vllm_prompt",
        "injection.vllm_worker",
        "training.verl_plugin",
        "inference.served_thoughts",
        "inference.server",
        "inference.vllm_engine",
        "inference.vllm_renderer",
    },
}


def sources(package: Path) -> dict[str, ast.Module]:
    """Every module by its name within the package; a folder's own is its `__init__`'s."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(file.read_text(), str(file))
    return found


def imported(module: ast.Module) -> set[tuple[str, str]]:
    """What a module imports: another, and which name of it; no name for `import a.b`."""
    pairs = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            pairs |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports name their module in full here"
            pairs |= {(node.module, alias.name) for alias in node.names}
    return pairs


def arrows(package: Path) -> dict[str, set[str]]:
    """Within the package: which modules each imports, by their names."""
    modules = sources(package)
    found = {}
    for importer, module in modules.items():
        found[importer] = set()
        for name, part in imported(module):
            top, _, within = name.partition(".")
            if top == package.name:
                # `from rsp_rl.grading import pool` is about the module `grading.pool`.
                inner = f"{within}.{part}".strip(".")
                found[importer].add(inner if inner in modules else within)
    return found


def climbs(found: dict[str, set[str]], rooms: Iterable[str] = ROOMS) -> list[str]:
    """Imports of a higher room, and by the package's own `__init__`, which lies below all."""
    height = {"": -1} | {room: number for number, room in enumerate(rooms)}
    return [
        f"{name} imports {target}"
        for name, targets in sorted(found.items())
        for target in sorted(targets)
        if height[target.partition(".")[0]] > height[name.partition(".")[0]]
    ]


def circle(found: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports, if there is one."""
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def strays(package: Path, rooms: Iterable[str] = ROOMS) -> list[str]:
    """What lies at the top of the package and is neither a room nor one of `TOP_FILES`."""
    known = TOP_FILES | set(rooms) - {"cli"}
    return sorted({path.name for path in package.iterdir()} - known - {"__pycache__"})


def test_imports_go_down_the_rooms() -> None:
    assert climbs(arrows(PACKAGE)) == []


def test_no_circle_of_imports() -> None:
    assert circle(arrows(PACKAGE)) == []


def test_the_top_holds_rooms_alone() -> None:
    assert strays(PACKAGE) == []
    assert [room for room in ROOMS[:-1] if not (PACKAGE / room / "__init__.py").is_file()] == []


def test_every_room_has_its_tests() -> None:
    assert [room for room in ROOMS[:-1] if not any((UNIT_TESTS / room).glob("test_*.py"))] == []


@pytest.mark.parametrize("library", KNOWN_TO)
def test_few_know_the_engines(library: str) -> None:
    importers = {
        name
        for name, module in sources(PACKAGE).items()
        if any(full.partition(".")[0] == library for full, _ in imported(module))
    }
    allowed = KNOWN_TO[library]
    unexpected = {
        name for name in importers if not any(f"{name}.".startswith(f"{a}.") for a in allowed)
    }
    assert unexpected == set()
    unused = {a for a in allowed if not any(f"{name}.".startswith(f"{a}.") for name in importers)}
    assert unused == set()


@pytest.mark.parametrize(
    ("line", "climbing", "round_about"),
    [
        ("from made.high.b import x", ["low.a imports high.b"], True),
        ("import made.high.b", ["low.a imports high.b"], True),
        ("from made.high import b", ["low.a imports high.b"], True),
        ("from made.high import name", ["low.a imports high"], False),
        ("def f():\n    from made.high.b import x", ["low.a imports high.b"], True),
        ("if TYPE_CHECKING:\n    from made.high.b import x", ["low.a imports high.b"], True),
        ("from made.low.c import x", [], True),
        ("from made import __version__", [], False),
        ("import torch", [], False),
    ],
)
def test_what_it_finds(tmp_path: Path, line: str, climbing: list[str], round_about: bool) -> None:
    """On a package of its own, `made`: `high.b` and `low.c` import `low.a`."""
    files = {
        "__init__.py": "__version__ = '1'",
        "low/__init__.py": "",
        "low/a.py": line,
        "low/c.py": "from made.low.a import x",
        "high/__init__.py": "name = 1",
        "high/b.py": "from made.low.a import x",
    }
    package = tmp_path / "made"
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = arrows(package)
    assert found["high.b"] == found["low.c"] == {"low.a"}
    assert climbs(found, ("low", "high")) == climbing
    assert bool(circle(found)) == round_about
    assert strays(package, ("low", "high")) == []
    (package / "loose.py").touch()
    assert strays(package, ("low", "high")) == ["loose.py"]
