"""The console command: quick to answer, complete, and one error a wrong call."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rsp_rl.cli import COMMANDS, main


def test_help_waits_for_no_library() -> None:
    heavy = {"torch", "matplotlib", "numpy", "transformers", "vllm", "verl", "ray", "omegaconf"}
    code = (
        "import sys\nfrom rsp_rl.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        f"print(sorted({heavy!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"    {name}" in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"train"}))
def test_every_command_is_its_modules(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: rsp-rl {name} ")


@pytest.mark.parametrize("arguments", [[], ["evaluate"], ["--", "eval"]])
def test_a_wrong_call_is_one_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("error: ") == 1
