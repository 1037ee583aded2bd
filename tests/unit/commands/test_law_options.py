"""`--law.KEY VALUE` on a command line: keys that no parser lists, values as YAML has them."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import main
from rsp_rl.commands.law_options import add_law_options, law_group, spelled_out

GENERATE = ("generate", "--model", "nowhere", "--benchmark", "arithmetic")


def group(*arguments: str) -> dict[str, Any] | None:
    parser = argparse.ArgumentParser()
    add_law_options(parser)
    return law_group(parser.parse_args(spelled_out(arguments)))


def test_settings_of_any_name() -> None:
    assert group() is None
    given = ("--law", "gumbel", "--law.k", "10", "--law.tau=1e-2", "--law.cold_entropy", "-1")
    assert group(*given) == {"name": "gumbel", "k": 10, "tau": 0.01, "cold_entropy": -1}
    assert group("--law.k", "3", "--law=gumbel") == {"name": "gumbel", "k": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[]", []),
        ("[</think>, <|im_end|>]", ["</think>", "<|im_end|>"]),
        ("</think>", "</think>"),
        ("true", True),
        ("null", None),
        # Texts stay as they are, spaces and all.
        ("", ""),
        ("\n\n", "\n\n"),
        (" The answer is", " The answer is"),
        ("so: ", "so: "),
        ("a: b: c", "a: b: c"),
        ("*x", "*x"),
        ("'42'", "42"),
    ],
)
def test_values(text: str, value: object) -> None:
    for given in (("--law.x", text), (f"--law.x={text}",)):
        assert group("--law", "gumbel", *given) == {"name": "gumbel", "x": value}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--law.k", "3"), "--law.k without --law NAME"),
        (("--law", "gumbel", "--law.k"), "--law.k needs a value"),
        (("--law", "gumbel", "--law.k", "--law.tau", "1"), "--law.k needs a value"),
        (("--law", "gumbel", "--law.", "3"), "--law. needs a value"),
        (("--law", "gumbel", "--law.end", "[a"), "--law.end '[a' cannot be read: while parsing"),
        (("--law", "gumble"), "law='gumble' is unknown; use one of token, soft_thinking"),
        (
            ("--law", "gumbel", "--law.kk", "3"),
            "law.kk is no setting of gumbel; known: begin, clamp, cold_entropy",
        ),
        (("--law", "gumbel", "--law.k", "ten"), "law.k='ten' must be of type int"),
        (("--law", "gumbel", "--law.k", "${k}"), "law.k='${k}' must be of type int"),
        (("--law", "soft_thinking", "--samples", "4"), "draws nothing with these settings"),
        (("--law", "gumbel", "--law.max_thoughts", "9999"), "leaves no room for an answer"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GENERATE, *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_with_a_law_there_is_no_soft_prompt_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []

    def keep(args: argparse.Namespace, length: int) -> None:
        found.append((args.law, length))
        raise ConfigError("enough")

    monkeypatch.setattr("rsp_rl.commands.generate._protocol", keep)
    for more in ((), ("--law", "gumbel"), ("--law", "gumbel", "--rsp.length", "7")):
        main([*GENERATE, *more])
    assert found == [(None, 20), ("gumbel", 0), ("gumbel", 7)]
    with pytest.raises(ConfigError):
        law_group(argparse.Namespace(law=None, law_settings=["k=3"]))
