"""The screen, while libraries print what they like: lines, bars, and where the rest goes."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from rsp_rl.basics.errors import GenerationError, KnownError

#: Seconds between two lines of a bar that is written to a file.
_LINE_EVERY_S = 30.0

#: Lines of a log that are shown when what wrote it has failed.
_LAST = 15

_screen: TextIO | None = None

#: Open to the end of the process: libraries keep the stream that they find when they are imported.
_logs: dict[Path, TextIO] = {}


def screen() -> TextIO:
    """Where progress is shown: standard error, also within `quiet`."""
    return _screen or sys.stderr


def say(line: str) -> None:
    """Show a line."""
    print(line, file=screen(), flush=True)


class _Lines:
    """A file that gets lines where a bar would be drawn anew in place."""

    encoding = "utf-8"

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=self._file, flush=True)

    def flush(self) -> None:
        self._file.flush()


def bar(
    iterable: Iterable[Any] | None = None,
    label: str = "",
    *,
    unit: str,
    total: int | None = None,
    show: bool = True,
) -> tqdm:
    """Progress through an iterable, or through `total` updates.

    On a terminal a bar is drawn anew; a file gets a line now and then.

    Args:
        iterable: What is gone through.
        label: What is done.
        unit: What is counted, singular.
        total: How many there are, where the iterable does not know.
        show: Whether to show anything.

    Returns:
        A tqdm, whatever its output goes to.
    """
    file = screen()
    options = {"desc": label or None, "unit": unit, "total": total, "disable": not show}
    if file.isatty():
        return tqdm(iterable, file=file, smoothing=0.1, **options)
    # Nothing at all of what is done sooner.
    lines = {"mininterval": _LINE_EVERY_S, "maxinterval": 2 * _LINE_EVERY_S, "ncols": 79}
    lines["delay"] = _LINE_EVERY_S
    return tqdm(iterable, file=_Lines(file), smoothing=0.1, **lines, **options)


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what libraries print to a file, C++ and child processes included; `say` still shows.

    So too what they print when the process ends. If an engine or anything unexpected fails in
    here, the file's last lines are shown.

    Args:
        log: The file; added to.
    """
    global _screen
    if _screen is not None:  # an outer one has the screen
        yield
        return
    file = _opened(log.resolve())
    begun = log.stat().st_size
    out, err = sys.stdout, sys.stderr
    out.flush()
    err.flush()
    kept = [os.dup(1), os.dup(2)]
    # A stream of its own where standard error is the one that is sent away (in tests it is not).
    own = os.fdopen(os.dup(kept[1]), "w", buffering=1) if _is_descriptor(err, 2) else None
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    _screen, sys.stdout, sys.stderr = own or err, file, file
    try:
        yield
    except Exception as error:
        if isinstance(error, GenerationError) or not isinstance(error, KnownError):
            _show_end(log, begun)
        raise
    finally:
        _screen, sys.stdout, sys.stderr = None, out, err
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if own is not None:
            own.close()


def _opened(log: Path) -> TextIO:
    if not _logs:
        atexit.register(_quiet_exit)
    if log not in _logs:
        log.parent.mkdir(parents=True, exist_ok=True)
        _logs[log] = log.open("a", buffering=1, encoding="utf-8", errors="replace")
    return _logs[log]


def _is_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError, AttributeError):
        return False


def _show_end(log: Path, begun: int) -> None:
    with log.open("rb") as file:
        file.seek(begun)
        lines = file.read().decode(errors="replace").splitlines()
    say(f"last lines of {log}:")
    for line in [line for line in lines if line.strip()][-_LAST:]:
        say(f"  {line}")


def _quiet_exit() -> None:
    """What libraries print while the interpreter ends goes where the rest of it went."""
    sys.stdout.flush()
    sys.stderr.flush()
    *_, last = _logs.values()
    os.dup2(last.fileno(), 1)
    os.dup2(last.fileno(), 2)
