"""Recipes of Coconut: the paper's settings value by value, and what each step is given."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from rsp_rl.commands import latent
from rsp_rl.data import arithmetic_steps
from rsp_rl.data.made_steps import write_step_files
from rsp_rl.latent.methods import METHODS
from rsp_rl.latent.scratch import make_model
from rsp_rl.latent.settings import Settings
from rsp_rl.runs.recipes import setting_names
from tests.unit.recipes.test_recipes import RECIPES, SHOW_ARGUMENTS

REPOSITORY = RECIPES.parent

#: The authors' configuration of GSM8K, and what their code fixes.
GSM8K = {
    "thoughts_per_step": 2,
    "max_stage": 3,
    "epochs_per_stage": 3,
    "epochs": 25,
    "learning_rate": 1e-4,
    "warmup_steps": 0,
    "weight_decay": 0.01,
    "optimizer": "adamw",
    "batch_size": 128,
    "micro_batch_size": 32,
    "reset_optimizer": "epoch",
    "uniform_stages": 0.0,
    "pad_thoughts": True,
    "ends": "fixed",
    "max_grad_norm": None,
    "max_new_tokens": 64,
    "seed": 0,
}


@pytest.fixture
def steps(tmp_path) -> Path:
    """A folder with files of problems."""
    sizes = {"train": 200, "validation": 8, "heldout": 8}
    write_step_files(tmp_path / "steps", arithmetic_steps.generate, sizes)
    return tmp_path / "steps"


@pytest.fixture
def shown(tmp_path) -> str:
    """Where an interpreter lies that only shows what it is told."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(SHOW_ARGUMENTS)
    python.chmod(0o755)
    return str(tmp_path)


def run(name: str, *arguments: str, outside: Path | None = None, **variables: str):
    """A recipe; in a copy of its own, outside of the checkout, it sets nothing up."""
    recipes = RECIPES
    if outside is not None:
        recipes = outside / "recipes"
        shutil.copytree(RECIPES, recipes, dirs_exist_ok=True)
    known = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        ["bash", str(recipes / f"{name}.sh"), *arguments],
        env={**known, "PYTHONPATH": str(REPOSITORY), **variables},
        cwd=outside,
        capture_output=True,
        text=True,
        check=False,
    )


def commands(printed: str) -> list[argparse.Namespace]:
    """Every `rsp-rl latent` that a recipe would start, as its own parser reads it."""
    root = argparse.ArgumentParser()
    latent.add_parser(root.add_subparsers())
    # Also of an interpreter that starts several processes.
    found = re.findall(r"-m\0rsp_rl\.cli\0(latent\0.*?)(?=\0-[cm]\0|\0summary|\0?$)", printed)
    return [root.parse_args(one.strip("\0").split("\0")) for one in found]


def gsm8k(tmp_path: Path, shown: str, steps: Path, *arguments: str, **variables: str):
    """What the recipe would train and evaluate; its last step fails, for there is no summary."""
    files = {
        "TRAIN_FILES": str(steps / "train.jsonl"),
        "VALIDATION_FILES": str(steps / "validation.jsonl"),
        "TEST_FILE": str(steps / "heldout.jsonl"),
    }
    done = run(
        *("coconut_gsm8k_gpt2", *arguments),
        outside=tmp_path,
        VENV=shown,
        **(files | variables),
    )
    assert "error" not in done.stderr, done.stderr
    return commands(done.stdout), done


@pytest.mark.parametrize("gpus", ["1", "4"])
def test_gsm8k_has_the_papers_settings(tmp_path, shown, steps, gpus):
    (cot, coconut, evaluated), done = gsm8k(tmp_path, shown, steps, GPUS=gpus)
    assert done.stdout.count("--nproc-per-node\x004\0") == (2 if gpus == "4" else 0)
    settings = asdict(latent.settings_of(coconut))
    assert {name: settings[name] for name in GSM8K} == GSM8K
    assert (settings["method"], settings["first_epoch"]) == ("coconut", 3)
    assert latent.settings_of(coconut).stage(3) == 1
    assert [latent.settings_of(coconut).stage(epoch) for epoch in (8, 11, 24)] == [2, 3, 4]
    assert latent.settings_of(coconut).final_thoughts == 6
    first = asdict(latent.settings_of(cot))
    assert {name: first[name] for name in GSM8K} == GSM8K
    assert (first["method"], first["first_epoch"]) == ("cot", 0)
    assert cot.model == "openai-community/gpt2"
    assert coconut.model == f"{cot.output}/model"
    assert (evaluated.path, evaluated.data) == (str(coconut.output), str(steps / "heldout.jsonl"))


@pytest.mark.parametrize("method", METHODS)
def test_gsm8k_of_each_method(tmp_path, shown, steps, method):
    found, _ = gsm8k(tmp_path, shown, steps, METHOD=method, SEED="2")
    trained = [latent.settings_of(one) for one in found[:-1]]
    assert trained[-1].method == method
    assert {one.seed for one in trained} == {2}
    from_cot = method in ("coconut", "no_thought", "pause_as_thought")
    assert [one.method for one in trained[:-1]] == ["cot"] * from_cot
    assert trained[-1].first_epoch == (3 if from_cot else 0)
    assert str(found[-2].output) == f"runs/coconut_gsm8k_gpt2/{method}"


def test_gsm8k_takes_several_files_and_settings(tmp_path, shown, steps):
    two = f"{steps / 'train.jsonl'} {steps / 'validation.jsonl'}"
    (cot, coconut, _), _ = gsm8k(
        *(tmp_path, shown, steps, "--uniform-stages", "0.1"), TRAIN_FILES=two
    )
    assert coconut.train == cot.train == two.split()
    assert latent.settings_of(coconut).uniform_stages == 0.1
    assert latent.settings_of(cot).uniform_stages == 0


@pytest.mark.parametrize("name", ["TRAIN_FILES", "TEST_FILE"])
def test_gsm8k_without_a_file_is_one_line(tmp_path, shown, steps, name):
    with pytest.raises(AssertionError, match=r"error: there is no nowhere\.jsonl; set TRAIN_FILES"):
        gsm8k(tmp_path, shown, steps, **{name: "nowhere.jsonl"})


def test_gsm8k_dry_run(tmp_path, steps):
    """From script to verdict on the real interpreter, with a small model in GPT-2's place."""
    problems = arithmetic_steps.generate("train", 64)
    sizes = {"layers": 1, "hidden_size": 32, "heads": 2, "context": 128}
    model = make_model(tmp_path / "model", problems, **sizes)
    variables = {
        "TRAIN_FILES": str(steps / "train.jsonl"),
        "VALIDATION_FILES": str(steps / "validation.jsonl"),
        "TEST_FILE": str(steps / "heldout.jsonl"),
        "MODEL": str(model),
        "DRY_RUN": "1",
        "VENV": str(REPOSITORY / ".venv"),
    }
    done = run("coconut_gsm8k_gpt2", outside=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    cot, coconut = done.stdout.split("method: coconut\n")
    assert "# a step: 128 problems over 4 processes, 32 each in 1 micro-batches" in coconut
    assert "# stage 0: epochs 1 to 25, 50 steps, 0 thoughts or pauses" in cot
    assert "# stage 1: epochs 4 to 6, 6 steps, 2 thoughts or pauses" in coconut
    assert "# stage 4 (all steps gone): epochs 13 to 25, 26 steps, 6 thoughts" in coconut
    assert "# steps: 2 an epoch, 44 in all" in coconut
    assert done.stdout.count(" of 80: fits") == 2
    assert not (tmp_path / "runs").exists()


#: Methods that begin with the CoT model in the recipe of ProsQA; the last has tokens for stages.
FROM_COT = ("coconut", "no_thought", "pause_as_thought", "icot")


def prosqa(tmp_path: Path, shown: str, *arguments: str, **variables: str):
    """What the recipe would start: model, trainings of which METHOD's is the last, answers."""
    done = run("coconut_prosqa_cpu", *arguments, outside=tmp_path, VENV=shown, **variables)
    assert "error" not in done.stderr, done.stderr
    assert "-m\0rsp_rl.data.prosqa\0--output\0" in done.stdout
    return commands(done.stdout)


@pytest.mark.parametrize("method", METHODS)
def test_prosqa_of_each_method(tmp_path, shown, method):
    model, *first, train, evaluated = prosqa(
        tmp_path, shown, "--weight-decay", "0.1", METHOD=method, SEED="4"
    )
    settings = latent.settings_of(train)
    assert (settings.method, settings.seed, settings.weight_decay) == (method, 4, 0.1)
    assert model.seed == 4
    folder = "coconut_sim" if method == "coconut" else method
    assert str(train.output) == evaluated.path == f"runs/coconut_prosqa_cpu/{folder}_4"
    assert evaluated.data.endswith("heldout.jsonl")
    if method in FROM_COT:
        cot, answered = first
        assert (cot.method, cot.model) == ("cot", str(model.output))
        assert (answered.path, answered.data) == (str(cot.output), evaluated.data)
        assert train.model == f"{cot.output}/model"
    else:
        assert first == []
        assert train.model == str(model.output)


def test_prosqa_of_cot_is_the_training_that_others_begin_with(tmp_path, shown):
    """Else the folder of a seed, which both use, would be refused to the second."""
    _, cot, *_ = prosqa(tmp_path, shown, "--weight-decay", "0.1", SEED="4")
    _, own, _ = prosqa(tmp_path, shown, METHOD="cot", SEED="4")
    assert vars(cot) == vars(own)
    assert str(cot.output) == "runs/coconut_prosqa_cpu/cot_4"


def test_prosqa_methods_differ_in_the_method_and_its_epochs_alone(tmp_path, shown):
    found = []
    for method in METHODS:
        model, *_, train, _ = prosqa(tmp_path, shown, METHOD=method)
        settings = asdict(latent.settings_of(train))
        assert settings.pop("method") == method
        assert settings.pop("step_decoder") == (method == "coconut")
        epochs = (settings.pop("first_epoch"), settings.pop("epochs"))
        assert epochs == ((1, 5) if method in FROM_COT else (0, 5 if method == "cot" else 9))
        found.append((vars(model), settings, train.train, train.validation))
    assert all(one == found[0] for one in found)
    own = Settings(method="coconut", first_epoch=1, epochs=5, **found[0][1])
    assert [own.stage(epoch) for epoch in range(1, 5)] == [1, 2, 3, 4]
    assert (own.warmup_steps, own.reset_optimizer, own.learning_rate) == (50, "stage", 1e-3)


def test_prosqa_follows_its_variables(tmp_path, shown):
    """Epochs of a stage are skipped and counted as such; without the decoder, another folder."""
    sizes = {"COT_EPOCHS": "6", "EPOCHS_PER_STAGE": "2", "MAX_STAGE": "2", "STEP_DECODER": "0"}
    _, cot, _, train, _ = prosqa(tmp_path, shown, **sizes)
    settings = latent.settings_of(train)
    assert latent.settings_of(cot).epochs == 6
    assert (settings.first_epoch, settings.epochs, settings.step_decoder) == (2, 8, 0)
    assert [settings.stage(epoch) for epoch in range(2, 8)] == [1, 1, 2, 2, 3, 3]
    assert str(train.output) == "runs/coconut_prosqa_cpu/coconut_0"
    _, rest, _ = prosqa(tmp_path, shown, METHOD="pause", **sizes)
    assert latent.settings_of(rest).epochs == 12
    *_, own, _ = prosqa(tmp_path, shown, EPOCHS="4", COT_DIR="there", RUN_DIR="here")
    assert (latent.settings_of(own).epochs, own.model, str(own.output)) == (
        *(4, "there/model", "here"),
    )


@pytest.mark.parametrize("name", ["coconut_prosqa_cpu", "coconut_gsm8k_gpt2"])
def test_an_unknown_method_is_one_line(tmp_path, shown, name):
    done = run(name, outside=tmp_path, VENV=shown, METHOD="thinking")
    assert done.returncode == 1
    assert done.stderr.startswith("error: METHOD=thinking is none of coconut, cot, ")
    assert {"METHOD", "SEED", "RUN_DIR", "DRY_RUN"} <= {*setting_names(RECIPES / f"{name}.sh")}


@pytest.mark.slow
def test_prosqa_from_script_to_summary(tmp_path):
    """The whole way on the real interpreter, and again: nothing is done twice."""
    variables = {
        "TRAIN_SIZE": "64",
        "VALIDATION_SIZE": "4",
        "HELDOUT_SIZE": "6",
        "LAYERS": "1",
        "HIDDEN_SIZE": "32",
        "HEADS": "2",
        "COT_EPOCHS": "1",
        "MAX_STAGE": "1",
        "MAX_NEW_TOKENS": "8",
        "THREADS": "1",
        "CONTEXT": "256",
        "RUN_DIR": "mine",
        "VENV": str(REPOSITORY / ".venv"),
    }
    done = run("coconut_prosqa_cpu", outside=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "mine" / "summary.json").read_text())
    assert {"accuracy", "tokens", "seconds_per_problem"} <= found.keys()
    assert (found["problems"], found["thoughts"], found["method"]) == (6, 1, "coconut")
    assert (found["step_decoder"], found["epochs"], found["epochs_done"]) == (1, 3, 3)
    again = run("coconut_prosqa_cpu", outside=tmp_path, **variables)
    assert again.returncode == 0, again.stderr
    assert "0 problems to answer, 6 are there" in again.stderr
    assert json.loads((tmp_path / "mine" / "summary.json").read_text()) == found
