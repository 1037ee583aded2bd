"""What a run's processes tell the console: one line of output an event.

Whoever shows a run (`rsp_rl.console.supervisor`) sets `VARIABLE` in its environment, which Ray
hands to all its processes. An event is a line of standard output with a marker and the variable's
value: Ray brings it to the console from whatever node, with everything else that is printed. The
value is a random word of the run, so that a model's output, which verl prints, cannot pass for an
event. Without the variable nothing is said.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

VARIABLE = "RSP_RL_CONSOLE"

#: Number of the open file that `begin` sends a process's output to.
PIPE_VARIABLE = "RSP_RL_CONSOLE_PIPE"

_MARKER = "rsp_rl:event"


def environment() -> dict[str, str]:
    """What the processes of this run need in their environment to tell events."""
    return {VARIABLE: word} if (word := os.environ.get(VARIABLE)) else {}


def pipe() -> int | None:
    """The open file for what is to be kept from the screen before `begin`, if there is one."""
    number = os.environ.get(PIPE_VARIABLE)
    return None if number is None or VARIABLE not in os.environ else int(number)


def begin(logs: str) -> None:
    """Leave the screen to the console, if there is one: from here on it shows what is told.

    Args:
        logs: Folder for everything else that is printed.
    """
    output = pipe()
    if output is None:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    del os.environ[PIPE_VARIABLE]
    tell("begin", logs=logs)


def tell(kind: str, **fields: Any) -> None:
    """Say that something has happened, if somebody listens.

    Args:
        kind: What: `begin`, `stage`, `steps`, `phase`, `step`, `validation`, `checkpoint`,
            `warning` or `error` (see `rsp_rl.console.training.TrainingView`).
        **fields: Its details, plain types.
    """
    if word := os.environ.get(VARIABLE):
        event = json.dumps({"kind": kind, **fields}, default=str)
        print(f"{_MARKER} {word} {event}", flush=True)


def read(line: str, word: str) -> dict[str, Any] | None:
    """The event of a line of output, None for any other line.

    Args:
        line: The line, whatever stands in front of the marker.
        word: The run's word.
    """
    _, found, rest = line.partition(f"{_MARKER} {word} ")
    if not found:
        return None
    try:
        event = json.loads(rest)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


class _WarningEvents(logging.Handler):
    """Warnings of this package as events, each text once a process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._told:
            self._told.add(text)
            tell("warning", text=text)


def tell_warnings() -> None:
    """From here on this process's warnings by `rsp_rl` loggers are events, too.

    Libraries raise the root logger's level when they are imported; they shall not silence these.
    """
    logger = logging.getLogger("rsp_rl")
    logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
    if not any(isinstance(handler, _WarningEvents) for handler in logger.handlers):
        logger.addHandler(_WarningEvents())
