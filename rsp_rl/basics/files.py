"""Files that are whole or not there, and folders that one process at a time writes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rsp_rl.basics.errors import RunFolderError

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; the lock ends with the process, however it ends.

    On a disk that has no locks (some network ones) nobody is kept out, and a warning says so.

    Raises:
        RunFolderError: If another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RunFolderError(
                f"{folder} is being written by another process ({lock.read().strip()}); wait for "
                "it, or choose another folder"
            ) from error
        except OSError as error:
            logger.warning(
                "%s is on a disk without locks (%s): see to it that nothing else writes there",
                folder,
                error,
            )
        lock.truncate(0)
        lock.write(f"host {os.uname().nodename}, pid {os.getpid()}")
        lock.flush()
        yield


def write_whole(file: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, whenever the process or the machine ends."""
    encoded = content.encode() if isinstance(content, str) else content
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(encoded)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON file that `write_json` made.

    Raises:
        RunFolderError: If it holds no JSON object.
    """
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); remove it") from error


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(file, json.dumps(content, indent=2) + "\n")
