"""The console command: quick to answer, complete, and one error a wrong call."""

from __future__ import annotations

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import COMMANDS, main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"    {name}" in help_text


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


def test_overrides_may_stand_after_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As people write them: the model, the protocol, what is changed of it."""
    found = []
    monkeypatch.setattr("rsp_rl.commands.evaluate.run", lambda args: found.append(args) or 0)
    assert main(["eval", "M", "seed=1", "--protocol", "P", "law.k=3", "--watch", "law.end=[]"]) == 0
    assert (found[0].path, found[0].protocol) == ("M", "P")
    assert found[0].overrides == ["seed=1", "law.k=3", "law.end=[]"]
    for wrong in (["eval", "M", "--protocol", "P", "more"], ["eval", "M", "--max-tokenz=3"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert "unrecognized arguments: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [(KeyboardInterrupt(), 130, "stopped\n"), (ConfigError("no such"), 1, "error: no such\n")],
)
@pytest.mark.parametrize("arguments", [["train"], ["recipe", "--list"]])
def test_how_every_command_ends(
    arguments: list[str],
    raised: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> int:
        raise raised

    monkeypatch.setattr("rsp_rl.commands.train.main", fail)
    monkeypatch.setattr("rsp_rl.commands.recipe.run", fail)
    assert main(arguments) == status
    assert capsys.readouterr().err == said
