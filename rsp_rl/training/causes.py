"""What ended a run, in its first line, and whether it would end again in the same way.

Ray wraps an error in one of its own at each process that it passes, with a traceback in front, and
tells of an actor that could not be made as of one that died.
"""

from __future__ import annotations

import builtins
import errno
import re

from ray.exceptions import RayActorError, RayTaskError

from rsp_rl.basics import exit_status
from rsp_rl.basics.errors import KnownError, RunBrokenError

#: In what Ray says of an actor whose `__init__` raised.
_CREATION = "raised in its creation task"

#: Errors of settings and of code: a start that never made a step ends in them again. Once a step
#: was made the settings are good, and such an error may be a race, or a disk that was away.
_COME_AGAIN = (
    *(ImportError, AttributeError, NameError, TypeError, NotImplementedError, AssertionError),
    *(ValueError, LookupError, SyntaxError, FileNotFoundError, PermissionError),
)
_NAMED = re.compile(r"^(?:[\w.]*\.)?(\w+)(?:: |$)")
_PID = re.compile(r"\bpid=(\d+)")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def root_cause(error: BaseException) -> tuple[BaseException, int | None]:
    """The error within Ray's wrappers, and the id of the process that raised it, if Ray says so."""
    pid = None
    while isinstance(error, RayTaskError) and error.cause is not None:
        named = _PID.search(str(error))  # the attribute is not on all of them
        error, pid = error.cause, int(named[1]) if named else pid
    return error, pid


def creation_error(text: str) -> str | None:
    """What an actor's own `__init__` raised, from what Ray says of its death; None for others."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if _CREATION in text else None


def first_line(error: BaseException, pid: int | None = None) -> str:
    """An error in a line: a known one's own words, else its type and first words.

    Args:
        error: The cause (`root_cause`).
        pid: Of the process that raised it, whose last lines may say more.
    """
    if isinstance(error, KnownError):
        return str(error)
    where = f" (in pid={pid})" if pid else ""
    if isinstance(error, RayActorError) and (made := creation_error(str(error))):
        return f"{made}{where}: a part of the run could not be made"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if isinstance(error, OSError) and error.errno in _FULL:
        said += "; make room there and start again with the same run_dir"
    return said + where


def status(error: BaseException, *, stepped: bool) -> int:
    """How a process that an error ended is to end (`rsp_rl.basics.exit_status`).

    Args:
        error: The cause (`root_cause`).
        stepped: Whether this start of the run made a training step.
    """
    if isinstance(error, KnownError):
        again = not isinstance(error, RunBrokenError)
    elif isinstance(error, RayActorError):
        made = creation_error(str(error))
        again = not stepped and made is not None and comes_again(made)
    else:
        again = not stepped and isinstance(error, _COME_AGAIN)
    return exit_status.WOULD_COME_AGAIN if again else exit_status.BROKEN


def comes_again(line: str) -> bool:
    """Whether a traceback's last line names an error of settings or code."""
    match = _NAMED.match(line)
    kind = getattr(builtins, match[1], None) if match else None
    return isinstance(kind, type) and issubclass(kind, _COME_AGAIN)
