"""Whose line is it, and where does it go."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsp_rl.console.log_files import DRIVER, Line, LogFiles, whose


@pytest.mark.parametrize(
    ("line", "process", "text"),
    [
        ("plain", DRIVER, "plain"),
        ("(no prefix) at all", DRIVER, "(no prefix) at all"),
        ("\x1b[36m(TaskRunner pid=3057)\x1b[0m step:1", "TaskRunner-3057", "step:1"),
        ("(WorkerDict pid=12, ip=10.0.0.2) x", "WorkerDict-12-10.0.0.2", "x"),
        ("\x1b[36m(A pid=1)\x1b[0m (B pid=2) nested", "A-1", "(B pid=2) nested"),
        ("\x1b[36m(Odd/Name: x pid=7)\x1b[0m  indented", "Odd_Name_x-7", " indented"),
        ("\x1b[33m(raylet pid=9, ip=fd00::1)\x1b[0m y", "raylet-9-fd00_1", "y"),
    ],
)
def test_a_line_is_told_apart(line: str, process: str, text: str) -> None:
    assert whose(line) == Line(process, text)


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path / "logs")
    logs.write(whose("(../../x pid=1) text"))
    assert [path.parent for path in tmp_path.rglob("*.log")] == [tmp_path / "logs"]


def test_a_file_a_process_and_the_next_start_adds_to_it(tmp_path: Path) -> None:
    for start in ("first", "second"):
        logs = LogFiles(tmp_path / "logs")
        logs.write(Line(DRIVER, start))
        logs.write(Line("A-1", "one"))
        assert (tmp_path / "logs" / "A-1.log").read_text().endswith("one\n")  # at once
        logs.close()
    assert (tmp_path / "logs" / "driver.log").read_text() == "first\nsecond\n"


def test_more_processes_than_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsp_rl.console.log_files._MOST_OPEN", 2)
    logs = LogFiles(tmp_path)
    for line in range(3):
        for process in range(5):
            logs.write(Line(f"A-{process}", f"line {line}"))
    assert len(logs._files) == 2
    logs.close()
    for process in range(5):
        assert (tmp_path / f"A-{process}.log").read_text() == "line 0\nline 1\nline 2\n"
        assert logs.last_lines(f"A-{process}") == ["line 0", "line 1", "line 2"]
    assert logs.with_pid("0") == "A-0"


def test_the_last_lines_are_kept_short(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path)
    for number in range(40):
        logs.write(Line("A-12", f"line {number}"))
    logs.write(Line("A-12", "   "))
    logs.write(Line("A-12", "0%\r50%\r100%"))
    logs.write(Line("A-12", "x" * 5000))
    *rest, bar, long = logs.last_lines("A-12")
    assert rest[-1] == "line 39"
    assert bar == "100%"
    assert len(long) < 500
    assert len(rest) < 20
    assert logs.with_pid("12") == "A-12"
    assert logs.with_pid("1") is None
    assert logs.last_lines("unknown") == []
