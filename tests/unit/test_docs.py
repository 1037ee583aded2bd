"""What documents, configs, scripts and comments name is there: modules, files, links, commands."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rsp_rl.cli import COMMANDS
from rsp_rl.draws.own_laws import GROUP

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "rsp_rl"
#: What the documents import of ours, by its first name.
ROOTS = {"rsp_rl": PACKAGE, "parity": REPOSITORY / "scripts" / "parity"}
FOLDERS = ("configs", "docs", "eval", "recipes", "scripts")

DOCUMENTS = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted(file for folder in FOLDERS for file in (REPOSITORY / folder).rglob("*.md")),
]
SETTINGS = [
    REPOSITORY / "pyproject.toml",
    *sorted((REPOSITORY / "tests").rglob("*.sh")),
    *sorted(
        file
        for folder in FOLDERS
        for file in (REPOSITORY / folder).rglob("*")
        if file.suffix in (".yaml", ".sh", ".sbatch") or file.name == "Dockerfile"
    ),
]

CODE = [*sorted(PACKAGE.rglob("*.py")), *sorted((REPOSITORY / "scripts").rglob("*.py"))]

#: Salts of hashes, not modules; the draws of old runs hang on them.
SALTS = ("rsp_rl.mixing", "rsp_rl.run_seed")

DOTTED = re.compile(r"(?<![\w.-])rsp_rl(?:\.\w+)+(?!/)")
A_PATH = re.compile(rf"(?<![\w/.-])(?:rsp_rl|tests|{'|'.join(FOLDERS)})/\w[\w/.-]*(?:::\w+)*")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
COMMAND = re.compile(r"(?<![\w/.-])rsp-rl ([a-z][a-z-]*)")


@cache
def text_of(file: Path) -> str:
    """A file's text; of the changelog's tables, which say old -> new, without the old column."""
    text = file.read_text()
    if file.name == "CHANGELOG.md":
        text = re.sub(r"^\|[^|\n]*\|", "|", text, flags=re.MULTILINE)
    return text


def found(pattern: re.Pattern, files: list[Path]) -> Iterator[tuple[str, re.Match]]:
    """All matches, each with its place."""
    for file in files:
        text = text_of(file)
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{file.relative_to(REPOSITORY)}:{line}: {match[0]}", match


@cache
def defined(module: Path) -> dict[str, ast.stmt]:
    """Names at the top level of a module, imported ones included."""
    return names_in(ast.parse(module.read_text()).body)


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    names: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id: node for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name: node for alias in node.names}
    return names


def is_there(dotted: str) -> bool:
    """Whether `rsp_rl.room.module.Name.method` exists, as far as it is spelt out."""
    first, *parts = dotted.split(".")
    place = ROOTS[first]
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if parts and (place / f"{parts[0]}.py").is_file():
        module = place / f"{parts.pop(0)}.py"
    else:
        module = place / "__init__.py"
    if not module.is_file():
        return False
    names = defined(module)
    for part in parts:
        if part.startswith("__"):  # every module has them
            continue
        if part not in names:
            return False
        names = names_in(getattr(names[part], "body", []))
    return True


def path_is_there(path: str) -> bool:
    """Whether a file or folder, and in it the test that `::` names, exists."""
    file, *names = path.rstrip(".").split("::")
    place = REPOSITORY / file
    return place.exists() and all(name in defined(place) for name in names)


def slugs(file: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows_under(heading: str, document: str) -> list[list[str]]:
    """Cells of the first table after a heading, without its head."""
    text = (REPOSITORY / document).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_modules_and_names_exist() -> None:
    matches = [*found(DOTTED, DOCUMENTS + SETTINGS + CODE)]
    assert len(matches) > 500
    wrong = [place for place, match in matches if not is_there(match[0])]
    assert [place for place in wrong if not place.endswith((*SALTS, GROUP))] == []


def test_paths_exist() -> None:
    matches = [*found(A_PATH, DOCUMENTS + SETTINGS + CODE)]
    assert len(matches) > 100
    assert [place for place, match in matches if not path_is_there(match[0])] == []


def test_relative_links_resolve() -> None:
    wrong = []
    for place, match in found(LINK, DOCUMENTS):
        target, anchor = match[1], match[2]
        if re.match(r"\w+:", target):
            continue
        document = REPOSITORY / place.split(":")[0]
        file = document.parent / target if target else document
        if not file.exists() or (anchor and anchor not in slugs(file)):
            wrong.append(place)
    assert wrong == []


def test_commands_exist() -> None:
    matches = [*found(COMMAND, DOCUMENTS + SETTINGS)]
    assert [place for place, match in matches if match[1] not in COMMANDS] == []


def test_python_of_the_documents_imports_what_exists() -> None:
    wrong = []
    for file in DOCUMENTS:
        for block in re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ROOTS:
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                    wrong += [f"{file.name}: {name}" for name in names if not is_there(name)]
    assert wrong == []


def test_routing_table_names_files_and_tests() -> None:
    rows = rows_under("To change X", "CONTRIBUTING.md")
    assert len(rows) >= 19
    for what, edit, tests in rows:
        assert A_PATH.search(edit), what
        named = [match[0] for match in A_PATH.finditer(tests)]
        assert named, what
        assert all(path.startswith("tests/") for path in named), what


def test_every_room_has_its_line_in_the_same_order() -> None:
    rooms = {
        file.parent.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        if file.parent != PACKAGE
    }
    rows = rows_under("Rooms", "docs/how_it_works.md")
    of_page = [re.search(r"`rsp_rl/(\w+)/`", row[0]) for row in rows]
    of_page = [match[1] for match in of_page if match]
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text().split("\n## Rooms\n")[1]
    of_contributing = re.findall(r"^\d+\. `(\w+)`", contributing, re.MULTILINE)
    assert of_page == of_contributing
    assert set(of_page) == rooms
    assert len(of_page) == len(rooms)


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("rsp_rl.draws", True),
        ("rsp_rl.draws.record", True),
        ("rsp_rl.draws.record.SoftPromptRecord.to_tensor", True),
        ("rsp_rl.soft_prompt", False),
        ("rsp_rl.draws.record.rollout_seed", False),
        ("rsp_rl.draws.record.SoftPromptRecord.to_nothing", False),
    ],
)
def test_a_wrong_name_is_seen(name: str, exists: bool) -> None:
    assert is_there(name) == exists


@pytest.mark.parametrize(
    ("path", "exists"),
    [
        ("tests/unit/test_docs.py::test_paths_exist", True),
        ("tests/unit/test_docs.py::test_nothing", False),
        ("rsp_rl/soft_prompt.py", False),
    ],
)
def test_a_wrong_path_is_seen(path: str, exists: bool) -> None:
    assert A_PATH.fullmatch(path)
    assert path_is_there(path) == exists
