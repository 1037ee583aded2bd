"""Lines and bars stay on the screen while libraries write into a file."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

BEGIN = """
import ctypes, os, sys
from pathlib import Path
from rsp_rl.basics.errors import ConfigError, GenerationError
from rsp_rl.console import screen
from rsp_rl.console.screen import bar, quiet, say
log = Path(sys.argv[1])
"""


def run(script: str, log: Path) -> tuple[int, str, str]:
    code = BEGIN + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, str(log)], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


def test_libraries_children_and_the_end_of_the_process_write_into_the_file(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    code, out, err = run(
        """
        import atexit
        atexit.register(lambda: os.write(2, b"leaked at the end\\n"))  # ours is called first
        print("before")
        with quiet(log):
            print("a library")
            print("a library's warning", file=sys.stderr)
            os.system("echo a child")
            ctypes.CDLL(None).dprintf(1, b"C code\\n")
            say("a line of ours")
            with quiet(log):
                print("within")
        print("after")
        os.system("echo a child after")
        """,
        log,
    )
    assert code == 0
    assert sorted(out.splitlines()) == ["a child after", "after", "before"]
    assert err == "a line of ours\n"
    assert sorted(log.read_text().splitlines()) == [
        *("C code", "a child", "a library", "a library's warning", "leaked at the end", "within")
    ]


def test_a_stream_that_a_library_has_kept_can_be_written_later(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    code, out, err = run(
        """
        with quiet(log):
            kept = sys.stdout
        kept.write("later\\n")
        """,
        log,
    )
    assert (code, out, err) == (0, "", "")
    assert log.read_text() == "later\n"


def test_of_a_failure_the_last_lines_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("of an earlier start\n")
    script = """
        try:
            with quiet(log):
                for number in range(40):
                    print("line", number)
                raise {error}
        except Exception as error:
            print(type(error).__name__)
    """
    for error in ("GenerationError('an engine died')", "KeyError('a fault')"):
        _, out, err = run(script.format(error=error), log)
        assert out == f"{error.partition('(')[0]}\n"
        lines = err.splitlines()
        assert lines[0] == f"last lines of {log}:"
        assert lines[-1] == "  line 39"
        assert len(lines) == 16
    _, _, err = run(script.format(error="ConfigError('a setting')"), log)
    assert err == ""


def test_a_bar_in_a_file_is_lines(tmp_path: Path) -> None:
    _, _, err = run(
        """
        screen._LINE_EVERY_S = 0.0
        for _ in bar(range(3), "counting", unit="step"):
            pass
        for _ in bar(range(3), unit="step", show=False):
            pass
        screen._LINE_EVERY_S = 30.0
        for _ in bar(range(3), "soon done", unit="step"):
            pass
        """,
        tmp_path / "log",
    )
    assert "\r" not in err
    lines = err.splitlines()
    assert lines[0].startswith("counting:   0%")
    assert lines[-1].startswith("counting: 100%")
    assert all(lines)
