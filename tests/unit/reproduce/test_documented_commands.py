"""The commands of docs/reproducing.md are planned as they stand there."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from rsp_rl.commands import reproduce as cli
from rsp_rl.reproduce.plan import evaluations, make_plan

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "reproducing.md").read_text()
_MODEL = re.search(r"^model=(\S+)", TEXT, re.MULTILINE)[1]
COMMANDS = [
    line.replace("$model", _MODEL)
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("rsp-rl reproduce")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_planned(command: str) -> None:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(shlex.split(command, comments=True)[1:])
    plan = make_plan(args.section.split(","), cli.wanted_by(args))
    assert all(plan.values())
    assert evaluations(plan) or args.section == "4.5"


def test_there_are_some() -> None:
    assert len(COMMANDS) == 10


def test_tokens_to_generate_are_those_of_the_plan() -> None:
    """The arithmetic of the GPU hours."""
    tokens = {"math500": 600, "gsm8k": 300, "aime24": 1000}
    problems = {"math500": 500, "gsm8k": 1319, "aime24": 30}
    documented = dict(re.findall(r"^\| (4\.[234]) \| .* = ([0-9.]+)M \|", TEXT, re.MULTILINE))
    assert len(documented) == 3
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    for section, millions in documented.items():
        command = ["reproduce", "--section", section, "--model", _MODEL, "--output", "out"]
        plan = make_plan([section], cli.wanted_by(parser.parse_args(command)))
        total = sum(
            (asked.limit or problems[asked.benchmark]) * asked.samples * tokens[asked.benchmark]
            for evaluation in evaluations(plan)
            for asked in evaluation.protocol.benchmarks
        )
        assert f"{total / 1e6:.1f}" == millions
