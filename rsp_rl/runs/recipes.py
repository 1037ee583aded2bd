"""Recipes as files: the bash scripts that come with the package, and what can be read from them."""

from __future__ import annotations

import re
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import RECIPES

#: `NAME=${NAME:-default}`: a setting, which the environment may give another value.
_SETTING = re.compile(r"^([A-Z][A-Z0-9_]*)=\$\{\1:-", re.MULTILINE)

#: `source` of a script that lies beside the one that says it, or in a folder there.
_SOURCE = re.compile(r'^source "\$\(dirname "\$\{BASH_SOURCE\[0\]\}"\)/([\w./-]+)"$', re.MULTILINE)


def recipe_names() -> list[str]:
    """The names of the package's recipes, without `.sh`."""
    return sorted(path.name.removesuffix(".sh") for path in RECIPES.glob("*.sh"))


def find_recipe(name: str) -> Path:
    """The package's recipe of a name.

    Raises:
        ConfigError: If there is none; names those that there are.
    """
    if name not in recipe_names():
        raise ConfigError(
            f"unknown recipe {name!r}; use one of {', '.join(recipe_names()) or 'none found'} "
            f"(in {RECIPES})"
        )
    return RECIPES / f"{name}.sh"


def recipe_files(recipe: Path) -> list[Path]:
    """A recipe and the scripts that it sources, itself or through another.

    Raises:
        ConfigError: If one of them is not there.
    """
    found: list[Path] = []
    waiting = [recipe]
    while waiting:
        script = waiting.pop()
        if script in found:
            continue
        if not script.is_file():
            raise ConfigError(f"{recipe} needs {script}, which is not there; put it back")
        found.append(script)
        waiting += [script.parent / name for name in _SOURCE.findall(script.read_text())]
    return found


def setting_names(recipe: Path) -> list[str]:
    """The variables that change a recipe: its own, and those of the scripts that it sources."""
    texts = [script.read_text() for script in recipe_files(recipe)]
    return list(dict.fromkeys(name for text in texts for name in _SETTING.findall(text)))


def title(recipe: Path) -> str:
    """The first line of a recipe's own description."""
    return _comment(recipe)[0]


def usage(recipe: Path) -> list[str]:
    """The commands in a recipe's own description, with what they do."""
    return [line.strip() for line in _comment(recipe) if line.startswith("  ")]


def _comment(recipe: Path) -> list[str]:
    """The comment at a recipe's head, below the line that names bash."""
    lines = []
    for line in recipe.read_text().splitlines()[1:]:
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines or [""]
