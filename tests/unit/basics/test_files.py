"""Files that are whole or not there, folders with one writer, values of command lines."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsp_rl.basics.arguments import count
from rsp_rl.basics.errors import RunFolderError
from rsp_rl.basics.files import locked, read_json, write_json, write_whole


def test_a_file_is_whole_or_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_whole(file, "first \N{SNOWMAN}\n")
    assert file.read_text(encoding="utf-8") == "first \N{SNOWMAN}\n"
    write_whole(file, b"second")

    def full_disk(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_whole(file, b"third")
    assert file.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_damaged_json_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.json"
    write_json(file, {"a": 1})
    assert read_json(file) == {"a": 1}
    file.write_text(text)
    with pytest.raises(RunFolderError, match=r"settings\.json is damaged .*; remove it"):
        read_json(file)


def test_a_folder_has_one_writer_and_its_lock_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom rsp_rl.basics.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunFolderError, match=f"pid {other.pid}"), locked(tmp_path):
            pass
        other.kill()
    with locked(tmp_path):
        pass


def test_a_disk_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path):
        pass
    assert "on a disk without locks" in caplog.text


def test_count_takes_whole_numbers_above_0() -> None:
    assert count("12") == 12
    for text in ("0", "-1", "1.5", "", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="no whole number above 0"):
            count(text)
