"""What the screen says of a run, in a file and on a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from rsp_rl.console.training import TrainingView, duration

STEP = {"kind": "step", "reward": 0.5, "tokens": 25.04, "gap": 3e-7, "seconds": 4.0}


def shown(events: list[dict[str, Any]], *, terminal: bool = False) -> str:
    file = io.StringIO()
    view = TrainingView(Console(file=file, force_terminal=terminal, width=120))
    for event in events:
        view.show(event)
    view.close()
    view.finish()
    return file.getvalue()


RUN = [
    {"kind": "begin", "logs": "runs/a/logs"},
    {"kind": "stage", "name": "Ray"},
    {"kind": "stage", "name": "data"},
    {"kind": "steps", "total": 10, "done": 0},
    {"kind": "phase", "name": "generation of step 1"},
    {"kind": "validation", "step": 0, "accuracy": 0.25},
    {**STEP, "step": 1},
    {"kind": "stage", "name": "a weight sync, which is no start-up any more"},
    {"kind": "checkpoint", "step": 1, "path": "runs/a/checkpoints/global_step_1"},
    {**STEP, "step": 10, "seconds": 6.0},
]


def test_a_file_gets_a_line_a_stage_and_a_step() -> None:
    lines = shown(RUN).splitlines()
    assert lines[0].startswith("start-up  checks of settings, model and data, ")
    assert lines[1] == "logs      runs/a/logs, a file a process"
    assert lines[2].startswith("start-up  Ray, ")
    assert lines[3].startswith("start-up  data, ")
    assert lines[4:] == [
        "validation at step 0: accuracy 0.250",
        "step  1/10  reward 0.500  tokens 25.0  gap 3.0e-07  4.0 s a step  36 s left",
        "checkpoint of step 1: runs/a/checkpoints/global_step_1",
        "step 10/10  reward 0.500  tokens 25.0  gap 3.0e-07  6.0 s a step",
        "trained   10 steps, 5.0 s a step; logs in runs/a/logs",
    ]


def test_a_terminal_gets_a_bar_instead_of_a_line_a_step() -> None:
    text = shown(RUN, terminal=True)
    assert "━" in text
    assert "generation of step 1" in text
    plain = [line for line in text.splitlines() if "validation at step 0" in line]
    assert len(plain) >= 1


def test_a_resumed_run_says_so() -> None:
    assert "resumed   after step 4 of 10" in shown([{"kind": "steps", "total": 10, "done": 4}])


def test_a_warning_stands_once_and_markup_in_it_is_text() -> None:
    warning = {"kind": "warning", "text": "the gap [bold]is[/] 0.5"}
    assert shown([warning, warning]).splitlines() == ["warning: the gap [bold]is[/] 0.5"]


def test_a_validation_without_accuracy() -> None:
    event = {"kind": "validation", "step": 3, "accuracy": None}
    assert shown([event]) == "validation at step 3: no accuracy\n"


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "unknown"},
        {"kind": "step"},
        {"kind": "step", "step": "x", "reward": None, "tokens": 1, "gap": 1, "seconds": 1},
        {"kind": "checkpoint", "other": 1},
    ],
)
def test_no_event_stops_the_screen(event: dict[str, Any]) -> None:
    after = {"kind": "validation", "step": 1, "accuracy": 1.0}
    assert shown([event, after]).endswith("validation at step 1: accuracy 1.000\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.9, "1 min 0 s"),
        (125.2, "2 min 5 s"),
        (3599.7, "1 h 0 min"),
        (11230, "3 h 7 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
