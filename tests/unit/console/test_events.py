"""Events in a run's output: told only where somebody listens, and told from everything else."""

from __future__ import annotations

import logging

import pytest

from rsp_rl.console import events


def test_nothing_is_said_to_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(events.VARIABLE, raising=False)
    events.tell("step", step=1)
    assert capsys.readouterr().out == ""
    assert events.environment() == {}


def test_an_event_is_read_back_behind_whatever_stands_in_front(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(events.VARIABLE, "w0rd")
    assert events.environment() == {events.VARIABLE: "w0rd"}
    events.tell("checkpoint", step=3, path="/a b\n")
    (line,) = capsys.readouterr().out.splitlines()
    told = {"kind": "checkpoint", "step": 3, "path": "/a b\n"}
    assert events.read(line, "w0rd") == told
    assert events.read(f"\x1b[36m(TaskRunner pid=3)\x1b[0m 5it [00:00]{line}", "w0rd") == told


@pytest.mark.parametrize(
    "line",
    [
        "",
        "rsp_rl:event",
        'rsp_rl:event 0ther {"kind": "error", "text": "of a model"}',
        "rsp_rl:event w0rd ",
        "rsp_rl:event w0rd [1]",
        'rsp_rl:event w0rd {"kind": 1}',
        'rsp_rl:event w0rd {"kind": "step"',
    ],
)
def test_other_lines_are_no_events(line: str) -> None:
    assert events.read(line, "w0rd") is None


def test_warnings_of_this_package_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(events.VARIABLE, "w0rd")
    package, root = logging.getLogger("rsp_rl"), logging.getLogger()
    before = list(package.handlers), package.level, root.level
    try:
        root.setLevel(logging.ERROR)  # as a library does that is imported
        events.tell_warnings()
        events.tell_warnings()
        for _ in range(2):
            logging.getLogger("rsp_rl.training.guard").warning("the gap is %.1f", 0.5)
        logging.getLogger("rsp_rl.training.guard").info("nothing")
        logging.getLogger("verl").warning("verl's own")
    finally:
        package.handlers = before[0]
        package.setLevel(before[1])
        root.setLevel(before[2])
    lines = [events.read(line, "w0rd") for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"kind": "warning", "text": "the gap is 0.5"}]
