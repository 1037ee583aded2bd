"""The bench of methods that think in hidden states: what it would train."""

from __future__ import annotations

import os
import subprocess

import pytest

from rsp_rl.commands import latent
from tests.unit.recipes.test_latent_recipes import REPOSITORY, commands
from tests.unit.recipes.test_recipes import SHOW_ARGUMENTS


@pytest.fixture
def trained(tmp_path):
    """By folder, the training there."""
    python = tmp_path / "python"
    python.write_text(SHOW_ARGUMENTS)
    python.chmod(0o755)

    def of(**variables: str):
        done = subprocess.run(
            [
                "bash",
                str(REPOSITORY / "scripts" / "bench" / "latent_methods.sh"),
                str(tmp_path / "run"),
            ],
            env={"PATH": os.environ["PATH"], "PYTHON": str(python), "SEEDS": "3", **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        found = [one for one in commands(done.stdout) if hasattr(one, "train")]
        return {one.output.name: one for one in found}

    return of


def test_coconut_with_the_decoder_has_a_folder_of_its_own(trained):
    found = trained(TASK="prosqa")
    assert [*found] == [
        *("cot_3", "coconut_3", "coconut_sim_3", "no_cot_3", "pause_as_thought_3"),
        *("no_thought_3", "icot_3", "pause_3", "no_curriculum_3"),
    ]
    settings = {name: latent.settings_of(one) for name, one in found.items()}
    assert {name for name, own in settings.items() if own.step_decoder} == {"coconut_sim_3"}
    assert settings["coconut_sim_3"].method == "coconut"
    assert settings["coconut_sim_3"].step_decoder == 1
    assert found["coconut_sim_3"].model == found["coconut_3"].model


def test_other_tasks_have_it_where_it_is_named(trained):
    assert "coconut_sim_3" not in trained()
    assert [*trained(METHODS="coconut_sim")] == ["cot_3", "coconut_sim_3"]
