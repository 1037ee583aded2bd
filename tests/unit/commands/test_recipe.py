"""`rsp-rl recipe`: the list, a copy, and a copy that runs without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsp_rl.basics.package_files import RECIPES
from rsp_rl.cli import main
from rsp_rl.runs.recipes import recipe_names, title

#: Stands for the interpreter: prints the folder and the arguments; `import rsp_rl` succeeds.
SHOW = '#!/usr/bin/env bash\n[[ $1 == -c ]] || echo "$PWD $*"\n'


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(SHOW)
    python.chmod(0o755)
    return tmp_path / "venv"


def _run(script: Path, folder: Path, *arguments: str, **variables: str) -> list[str]:
    folder.mkdir()
    done = subprocess.run(
        ["bash", str(script), *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_names()
    assert all(
        line.endswith(f"  {title(RECIPES / f'{name}.sh')}")
        for line, name in zip(lines, recipe_names(), strict=True)
    )


def test_it_waits_for_no_library() -> None:
    code = (
        "import sys\nfrom rsp_rl.cli import main\nmain(['recipe', '--list'])\n"
        "print(sorted({'torch', 'numpy', 'ray', 'omegaconf', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_copy_and_what_to_run_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my recipes"
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    assert main(["recipe", "dapo_qwen7b", "--copy", str(folder)]) == 0
    copies = {path.relative_to(folder) for path in folder.rglob("*.sh")}
    assert copies == {Path("dapo_qwen7b.sh"), Path("lib/gpu.sh"), Path("lib/start.sh")}
    for path in copies:
        assert (folder / path).read_bytes() == (RECIPES / path).read_bytes()
    printed = capsys.readouterr().out
    assert f"  DRY_RUN=1 bash '{folder}/dapo_qwen7b.sh'     settings" in printed
    assert "VENV" not in printed
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # not this environment's
    assert main(["recipe", "dapo_qwen7b", "--copy", str(folder)]) == 0  # nothing has changed
    assert f"  export VENV={sys.prefix}\n" in capsys.readouterr().out


def test_a_changed_file_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "lib" / "start.sh"
    mine.parent.mkdir()
    mine.write_text("mine\n")
    assert main(["recipe", "dapo_qwen7b", "--copy", str(tmp_path)]) == 1
    assert f"error: {mine} differs from the recipe's; move it" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert mine.read_text() == "mine\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["recipe", "dapo_qwen7b", "--copy", str(tmp_path / "file")]) == 1
    assert "error: cannot copy to" in capsys.readouterr().err


def test_a_name_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "dapo", "--copy", str(tmp_path / "new")]) == 1
    assert "error: unknown recipe 'dapo'; use one of" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["dapo_qwen7b"], ["--copy", "x"], ["--list", "--copy", "x"]]
)
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["recipe", *arguments])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_copied_recipe_runs_in_the_current_folder(tmp_path: Path, venv: Path) -> None:
    """With VENV's Python or the active one, and no set-up; the same command lines as in place."""
    main(["recipe", "dapo_rsp_tiny_cpu", "--copy", str(tmp_path / "recipes")])
    copy = tmp_path / "recipes" / "dapo_rsp_tiny_cpu.sh"
    here = tmp_path / "here"
    lines = _run(copy, here, "a=b", VENV=str(venv), STEPS="3")
    modules = ["rsp_rl.tiny", "rsp_rl.data.arithmetic", *["rsp_rl.cli"] * 3]
    assert [line.split()[:3] for line in lines] == [[str(here), "-m", module] for module in modules]
    train = lines[2].split()
    assert train[3:6] == ["train", "--config-name", "tiny_cpu"]
    assert "run_dir=runs/dapo_rsp_tiny_cpu" in train
    assert train[-1] == "a=b"
    assert lines[4].endswith("eval runs/dapo_rsp_tiny_cpu --protocol tiny --steps 0,3")
    active = f"{venv / 'bin'}:{os.environ['PATH']}"
    assert _run(copy, tmp_path / "there", PATH=active)[0].startswith(f"{tmp_path / 'there'} -m")


def test_a_copied_gpu_recipe_makes_its_data_and_trains(tmp_path: Path, venv: Path) -> None:
    main(["recipe", "dapo_rsp_llama8b", "--copy", str(tmp_path / "recipes")])
    here = tmp_path / "here"
    lines = _run(tmp_path / "recipes" / "dapo_rsp_llama8b.sh", here, VENV=str(venv))
    prepare = "rsp_rl.data.prepare --output runs/math35_llama --template llama-chat"
    assert lines[0] == f"{here} -m {prepare}"
    assert lines[1].startswith(f"{here} -m rsp_rl.cli train --config-name dapo_rsp +machine")
    assert lines[2] == f"{here} -m rsp_rl.cli report runs/dapo_rsp_llama8b"


def test_without_an_environment_the_error_says_how(tmp_path: Path) -> None:
    main(["recipe", "dapo_qwen7b", "--copy", str(tmp_path)])
    done = subprocess.run(
        ["bash", str(tmp_path / "dapo_qwen7b.sh")],
        env={"PATH": os.environ["PATH"], "VENV": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: /nowhere/bin/python has no rsp_rl; activate")
    assert done.stderr.count("\n") == 1
