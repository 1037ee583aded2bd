"""Recipes as files: what they source, which settings they have, what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import RECIPES
from rsp_rl.runs.recipes import (
    find_recipe,
    recipe_files,
    recipe_names,
    setting_names,
    title,
    usage,
)

SOURCE = 'source "$(dirname "${BASH_SOURCE[0]}")/%s"\n'


def test_files_and_settings_follow_what_is_sourced(tmp_path: Path) -> None:
    recipe, lib = tmp_path / "mine.sh", tmp_path / "lib"
    lib.mkdir()
    recipe.write_text("A=${A:-1}\nB=${C:-1}\n" + SOURCE % "lib/one.sh")
    (lib / "one.sh").write_text(SOURCE % "two.sh" + "A=${A:-2}\nD_2=${D_2:-}\n  E=${E:-1}\n")
    (lib / "two.sh").write_text(SOURCE % "one.sh" + "F=${F:-x y}\n")
    assert recipe_files(recipe) == [recipe, lib / "one.sh", lib / "two.sh"]
    assert setting_names(recipe) == ["A", "D_2", "F"]
    (lib / "two.sh").unlink()
    with pytest.raises(ConfigError, match=r"mine\.sh needs .*lib/two\.sh, which is not there"):
        recipe_files(recipe)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_sources_what_is_read_from_it(name: str) -> None:
    """A `source` written in another way would be missing from a copy."""
    for script in recipe_files(find_recipe(name)):
        lines = [line.strip() for line in script.read_text().splitlines()]
        sourced = [line for line in lines if line.startswith(("source ", ". "))]
        assert len(recipe_files(script)) > len(sourced)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is_and_how_to_run_it(name: str) -> None:
    recipe = find_recipe(name)
    assert title(recipe).endswith(".")
    assert usage(recipe)
    assert all(f"bash recipes/{name}.sh" in line for line in usage(recipe))


def test_a_default_of_the_gpu_recipes_stands_in_one_place() -> None:
    shared = set(setting_names(RECIPES / "lib" / "gpu.sh"))
    own = {
        name: shared
        & {line.partition("=")[0] for line in find_recipe(name).read_text().splitlines()}
        for name in recipe_names()
        if RECIPES / "lib" / "gpu.sh" in recipe_files(find_recipe(name))
    }
    assert own.pop("dapo_rsp_llama8b") == {"TEMPLATE", "DATA_DIR"}  # another chat template
    assert own.pop("dapo_rsp_qwen1.5b") == {"GPUS_PER_NODE"}
    # Other papers' settings.
    for name in ("multiplex_qwen1.5b", "multiplex_rsp_qwen7b"):
        assert own.pop(name) <= {"STEPS", "GPUS_PER_NODE"}
    for name in ("soft_grpo_qwen1.5b", "soft_tokens_llama3b"):
        assert own.pop(name) <= {"STEPS", "GPUS_PER_NODE", "MAX_TOKENS_PER_GPU", "DATA_DIR"}
    assert len(own) == 3
    assert not any(own.values())


def test_unknown_recipe() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe 'none'; use one of .*, dapo_qwen7b, "):
        find_recipe("none")
