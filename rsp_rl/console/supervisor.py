"""Runs a training in a process of its own and shows it.

The child has the screen until it begins (`rsp_rl.console.events.begin`): Hydra's own answers,
errors before the start and the whole stream of `console=full` are its own. What it prints from then
on, and Ray for all its processes, comes through a pipe: the screen shows events alone, and all
lines go to files.
"""

from __future__ import annotations

import ctypes
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from rsp_rl.console.events import PIPE_VARIABLE, VARIABLE, read
from rsp_rl.console.log_files import DRIVER, LogFiles, whose
from rsp_rl.console.training import TrainingView

#: A line that is longer comes in pieces, lest one without an end fills the memory.
_LONGEST_LINE = 1 << 20

#: For how long no line comes before the child is asked whether it has ended.
_POLL_S = 0.3

#: How long its last lines are waited for; what it started may hold the pipe longer than it lives.
_LAST_WORDS_S = 5.0

_MOST_EARLY = 10_000

#: A screen that is gone is no reason to end a run; rich would end the process for a broken pipe.
_NO_SCREEN = (OSError, SystemExit)

_PDEATHSIG = 1  # prctl's option, see prctl(2)

#: Process ids in what Ray says of a death, or of where an error was raised.
_PID = re.compile(r"\bpid[:=] ?(\d+)")


def supervise(command: Sequence[str]) -> int:
    """Run a training to its end.

    Args:
        command: What to start; it tells events (`rsp_rl.console.events`).

    Returns:
        Its exit status; 128 and the signal's number if one that it or this process got ended it:
        130 for Ctrl-C, 143 for SIGTERM, whatever Ray makes of them.
    """
    word = secrets.token_hex(8)
    reading, writing = os.pipe()
    child = subprocess.Popen(
        command,
        env={**os.environ, VARIABLE: word, PIPE_VARIABLE: str(writing)},
        pass_fds=[writing],
        preexec_fn=_end_with_parent,
    )
    os.close(writing)
    received = _hand_signals_on(child)
    shown = _Shown(word)
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    pipe = os.fdopen(reading, "rb")
    reader = threading.Thread(target=_read_lines, args=(pipe, lines), daemon=True)
    reader.start()
    try:
        while (status := child.poll()) is None:
            _drain(lines, shown, _POLL_S)
        reader.join(_LAST_WORDS_S)
        _drain(lines, shown, 0)
    finally:
        shown.close(finished=child.returncode == 0)
    status = status if status >= 0 else 128 - status
    if status and received:
        status = 128 + received[0]
    if status:
        shown.explain(status, stopped_by=received[0] if received else None)
    return status


class _Shown:
    """What became of the child's lines so far."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._view = TrainingView(Console(file=sys.stdout))
        self._logs: LogFiles | None = None
        self._error: str | None = None
        self._full = False
        #: What came before there was a folder for it, of processes that start ahead.
        self._early: deque[str] = deque(maxlen=_MOST_EARLY)

    def line(self, raw: bytes) -> None:
        text = raw.decode(errors="replace").rstrip("\r\n")
        event = read(text, self._word)
        if event is None:
            self._keep(text)
            return
        if event["kind"] == "begin":
            self._logs = LogFiles(Path(event["logs"]))
            for early in self._early:
                self._keep(early)
        elif event["kind"] == "error":
            self._error = str(event.get("text"))
            return
        with suppress(*_NO_SCREEN):
            self._view.show(event)

    def _keep(self, text: str) -> None:
        if self._logs is None:
            self._early.append(text)
            return
        try:
            if not self._full:
                self._logs.write(whose(text))
                return
        except OSError as error:
            self._full = True
            _say(
                f"warning: {self._logs.folder} cannot be written ({error}); the run goes on, and "
                "what its processes print is shown here"
            )
        _say(text)

    def close(self, *, finished: bool) -> None:
        with suppress(*_NO_SCREEN):
            self._view.close()
            if finished:
                self._view.finish()
        if self._logs is not None:
            self._logs.close()

    def explain(self, status: int, *, stopped_by: int | None) -> None:
        """Why the run ended, and the last words of the process that died."""
        if stopped_by is not None:
            how = (
                "stopped"
                if stopped_by == signal.SIGINT
                else f"stopped by {_signal_name(stopped_by)}"
            )
            _say(f"{how}; the same command goes on from the last checkpoint")
            if self._logs is not None:
                _say(f"logs of all processes: {self._logs.folder}")
            return
        if self._logs is None:  # everything is on the screen already
            return
        last = self._logs.last_lines(DRIVER)
        if status > 128:
            cause = f"the run's own process was ended by {_signal_name(status - 128)}"
        else:
            cause = self._error or (last[-1] if last else f"exit status {status}")
        _say(f"error: {cause}")
        pids = _PID.findall("\n".join([self._error] if self._error else last))
        named = (self._logs.with_pid(pid) for pid in dict.fromkeys(pids))
        dead = [process for process in named if process] or [DRIVER]
        if self._error and not pids:
            dead = []  # a check that stopped the run: nobody died, and the error says it all
        for process in dead:
            _say(f"last lines of {process}, {self._logs.path(process)}:")
            for text in self._logs.last_lines(process):
                _say(f"  {text}")
        _say(f"logs of all processes: {self._logs.folder}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _say(line: str) -> None:
    with suppress(*_NO_SCREEN):
        print(line, file=sys.stderr, flush=True)


def _read_lines(pipe: BinaryIO, lines: queue.SimpleQueue[bytes]) -> None:
    while line := pipe.readline(_LONGEST_LINE):
        lines.put(line)


def _drain(lines: queue.SimpleQueue[bytes], shown: _Shown, patience_s: float) -> None:
    """Show lines until none has come for so long."""
    with suppress(queue.Empty):
        while True:
            shown.line(lines.get(timeout=patience_s))


def _hand_signals_on(child: subprocess.Popen) -> list[int]:
    """Let the child end as it sees fit, and its end be ours.

    Ctrl-C in a terminal reaches both; other signals reach this process alone.

    Returns:
        The signals that came, to be filled.
    """
    received: list[int] = []

    def hand_on(number: int, _: object) -> None:
        received.append(number)
        child.send_signal(number)

    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish is the child's too
            signal.signal(number, hand_on)
    return received


def _end_with_parent() -> None:
    """In the child: be killed when this process is; nobody would show it, or stop it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
