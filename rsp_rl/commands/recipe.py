"""`rsp-rl recipe`: the recipes that come with the package, for whoever has no checkout."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from pathlib import Path

from rsp_rl.basics.errors import ConfigError
from rsp_rl.runs.recipes import find_recipe, recipe_files, recipe_names, title, usage


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `recipe` command."""
    parser = commands.add_parser(
        "recipe",
        description="List the recipes, or copy one with the scripts that it sources. A copy runs "
        "in the current folder with the environment that is active, or that VENV names.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="one that --list names")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--list", action="store_true", help="each recipe with what it is")
    what.add_argument("--copy", type=Path, metavar="DIR", help="where to put NAME.sh and its lib/")
    parser.set_defaults(func=run, fail=parser.error)


def run(args: argparse.Namespace) -> int:
    """List or copy; see `add_parser` for the arguments.

    Raises:
        ConfigError: If there is no such recipe, or a file in the way differs from it.
    """
    if args.list:
        width = max(map(len, recipe_names()), default=0)
        for name in recipe_names():
            print(f"{name:<{width}}  {title(find_recipe(name))}")
        return 0
    if args.name is None:
        args.fail("--copy needs the NAME of a recipe; --list has them")
    recipe = find_recipe(args.name)
    for path in copy(recipe, args.copy):
        print(f"copied {path}")
    script = shlex.quote(str(args.copy / recipe.name))
    print("\nnext:")
    if not _is_active():
        print(f"  export VENV={shlex.quote(sys.prefix)}")
    for line in usage(recipe):
        print(f"  {line.replace(f'recipes/{recipe.name}', script)}")
    return 0


def copy(recipe: Path, folder: Path) -> list[Path]:
    """Copy a recipe and the scripts that it sources, all or none.

    Args:
        recipe: The package's.
        folder: Where to; made if it is not there.

    Returns:
        The copies. One that was there with the same content stays as it is.

    Raises:
        ConfigError: If a file of that name and another content, or a file instead of a folder, is
            in the way.
    """
    places = {path: folder / path.relative_to(recipe.parent) for path in recipe_files(recipe)}
    for path, place in places.items():
        if place.exists() and (not place.is_file() or place.read_bytes() != path.read_bytes()):
            raise ConfigError(f"{place} differs from the recipe's; move it, or name another folder")
    try:
        for path, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    except OSError as error:
        raise ConfigError(f"cannot copy to {folder} ({error}); name another folder") from error
    return list(places.values())


def _is_active() -> bool:
    """Whether a copied recipe finds this environment without being told."""
    python = shutil.which("python")
    return python is not None and Path(python).parent == Path(sys.executable).parent
