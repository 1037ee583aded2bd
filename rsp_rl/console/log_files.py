"""A run's output, a file a process: what Ray prints of them all is told apart again."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from pathlib import Path
from typing import NamedTuple, TextIO

DRIVER = "driver"

#: How Ray's driver begins a line of another process: its name, its process id, and its node's
#: address unless it is the driver's own node.
_PREFIX = re.compile(
    r"^(?:\x1b\[\d+m)?\((?P<name>[^\x1b]*?)"
    r"(?: pid=(?P<pid>\d+)(?:, ip=(?P<ip>[0-9a-fA-F.:]+))?)\)(?:\x1b\[0m)? ?"
)
_NOT_IN_NAMES = re.compile(r"[^\w.-]+")

#: Lines of each process that are kept to be shown if it dies.
_LAST = 15
_WIDEST = 300

#: Files that are open at once: a large cluster has more processes than a process may have files.
_MOST_OPEN = 256


class Line(NamedTuple):
    """A line of output and whose it is.

    Attributes:
        process: `driver`, or name and process id of another, with its address if that is another
            node's.
        text: Without what Ray puts in front.
    """

    process: str
    text: str


def whose(line: str) -> Line:
    """Tell which process wrote a line of the driver's output."""
    match = _PREFIX.match(line)
    if match is None:
        return Line(DRIVER, line)
    parts = [match["name"] or "process", match["pid"], *([match["ip"]] if match["ip"] else [])]
    return Line(_NOT_IN_NAMES.sub("_", "-".join(parts))[:100], line[match.end() :])


class LogFiles:
    """The files, `<process>.log` each; an earlier start's lines stay in front.

    Args:
        folder: Where they lie; made with the first line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: OrderedDict[str, TextIO] = OrderedDict()  # the one written last is last
        self._last: dict[str, deque[str]] = {}

    def write(self, line: Line) -> None:
        """Add a line to its process's file.

        Raises:
            OSError: If it cannot be written.
        """
        if line.process not in self._files:
            self._open(line.process)
        self._files.move_to_end(line.process)
        self._files[line.process].write(line.text + "\n")
        if shown := line.text.rpartition("\r")[2].strip():  # of a bar, where it stands
            self._last[line.process].append(shown[:_WIDEST])

    def _open(self, process: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(self._files) == _MOST_OPEN:
            _, oldest = self._files.popitem(last=False)
            oldest.close()
        # Line by line: a run may be killed, and is watched with `tail -f`.
        file = self.path(process).open("a", encoding="utf-8", errors="replace", buffering=1)
        self._files[process] = file
        self._last.setdefault(process, deque(maxlen=_LAST))

    def path(self, process: str) -> Path:
        """The file of a process."""
        return self.folder / f"{process}.log"

    def last_lines(self, process: str) -> list[str]:
        """The end of what a process wrote."""
        return list(self._last.get(process, ()))

    def with_pid(self, pid: str) -> str | None:
        """The process with a process id, None if it has written nothing."""
        named = re.compile(rf"-{re.escape(pid)}(-|$)")
        return next((process for process in self._last if named.search(process)), None)

    def close(self) -> None:
        """Close all files."""
        for file in self._files.values():
            file.close()
