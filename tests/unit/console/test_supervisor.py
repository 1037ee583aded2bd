"""A child that prints as a training does: what reaches the screen, the files, the exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

RUN = (
    "import sys; from rsp_rl.console.supervisor import supervise; sys.exit(supervise(sys.argv[1:]))"
)

BEGIN = """
import os, signal, sys, time
from rsp_rl.console import events
from rsp_rl.console.events import tell
def begin():
    events.begin(os.environ["LOGS"])
def ray(name, pid, text, file=sys.stdout):
    print(f"\\x1b[36m({name} pid={pid})\\x1b[0m {text}", file=file, flush=True)
"""


def start(script: str, logs: Path, ignored: Sequence[signal.Signals] = ()) -> subprocess.Popen[str]:
    code = BEGIN + textwrap.dedent(script)

    def set_signals() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, "-c", RUN, sys.executable, "-u", "-c", code],
        env={**os.environ, "LOGS": str(logs)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=set_signals,
        start_new_session=True,
    )


def ended(script: str, logs: Path) -> tuple[int, str, str]:
    process = start(script, logs)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_before_it_begins_everything_is_passed_on(tmp_path: Path) -> None:
    code, out, err = ended(
        "print('to read'); print('error: no such model', file=sys.stderr); sys.exit(2)", tmp_path
    )
    assert (code, out, err) == (2, "to read\n", "error: no such model\n")
    assert not list(tmp_path.iterdir())


def test_then_the_screen_has_events_and_the_files_the_rest(tmp_path: Path) -> None:
    code, out, err = ended(
        """
        begin()
        print("driver's chatter")
        ray("Worker", 12, "chatter of a worker", sys.stderr)
        ray("TaskRunner", 7, 'rsp_rl:event 0123 {"kind": "error", "text": "of a model"}')
        tell("validation", step=0, accuracy=0.5)
        sys.stdout.write("no line break at the end")
        """,
        tmp_path,
    )
    assert code == 0
    assert err == ""
    assert out.splitlines()[1:] == [
        f"logs      {tmp_path}, a file a process",
        "validation at step 0: accuracy 0.500",
    ]
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert files["driver.log"] == "driver's chatter\nno line break at the end\n"
    assert files["Worker-12.log"] == "chatter of a worker\n"
    assert "of a model" in files["TaskRunner-7.log"]


def test_what_a_process_prints_that_starts_ahead_is_kept_too(tmp_path: Path) -> None:
    code, out, err = ended(
        """
        import subprocess
        subprocess.run([sys.executable, "-c", "print('ahead')"], stdout=events.pipe())
        begin()
        assert events.pipe() is None
        print("then")
        """,
        tmp_path,
    )
    assert (code, err) == (0, "")
    assert "ahead" not in out
    assert (tmp_path / "driver.log").read_text() == "ahead\nthen\n"


def test_logs_that_cannot_be_written_do_not_end_the_run(tmp_path: Path) -> None:
    """A full disk, or here a file in the folder's place: the lines are shown instead."""
    logs = tmp_path / "file" / "logs"
    (tmp_path / "file").write_text("")
    code, out, err = ended(
        """
        begin()
        print("one")
        print("two")
        tell("validation", step=0, accuracy=0.5)
        """,
        logs,
    )
    assert code == 0
    assert out.endswith("validation at step 0: accuracy 0.500\n")
    warning, *lines = err.splitlines()
    assert warning.startswith(f"warning: {logs} cannot be written (")
    assert lines == ["one", "two"]


def test_a_screen_that_is_gone_does_not_end_the_run(tmp_path: Path) -> None:
    process = start(
        """
        begin()
        for step in range(2000):
            tell("validation", step=step, accuracy=0.5)
        print("to the end")
        """,
        tmp_path,
    )
    process.stdout.close()
    process.stderr.close()
    assert process.wait(120) == 0
    assert (tmp_path / "driver.log").read_text() == "to the end\n"


def test_under_nohup_a_hang_up_is_ignored(tmp_path: Path) -> None:
    process, child = waiting(tmp_path, ignored=[signal.SIGHUP])
    process.send_signal(signal.SIGHUP)
    child.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_known_error_is_one_line_and_where_the_logs_are(tmp_path: Path) -> None:
    code, _, err = ended('begin(); tell("error", text="the gap is wide"); sys.exit(2)', tmp_path)
    assert code == 2
    assert err.splitlines() == [
        "error: the gap is wide",
        f"logs of all processes: {tmp_path}",
    ]


def test_of_a_process_that_died_the_last_lines_are_shown(tmp_path: Path) -> None:
    code, _, err = ended(
        """
        begin()
        for number in range(50):
            ray("Worker", 12, f"line {number}")
        ray("Other", 13, "well and alive")
        tell("error", text="rank 0 died. Ray says: class_name: W pid: 12 ip: 127.0.0.1")
        sys.exit(1)
        """,
        tmp_path,
    )
    assert code == 1
    assert f"last lines of Worker-12, {tmp_path}/Worker-12.log:" in err
    assert "  line 49\n" in err
    assert "line 20\n" not in err
    assert "well and alive" not in err


def test_an_unknown_error_shows_the_end_of_its_traceback(tmp_path: Path) -> None:
    code, _, err = ended("begin(); {}['no such key']", tmp_path)
    assert code == 1
    assert err.startswith("error: KeyError: 'no such key'\n")
    assert f"last lines of driver, {tmp_path}/driver.log:" in err
    assert "Traceback" in err


def test_a_child_that_was_killed(tmp_path: Path) -> None:
    code, _, err = ended("begin(); os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    assert code == 137
    assert "ended by SIGKILL" in err


def test_what_the_child_started_may_outlive_it(tmp_path: Path) -> None:
    """It has the pipes, too; nobody waits for it."""
    code, _, _ = ended(
        """
        begin()
        import subprocess
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(os.environ["LOGS"] + "/pid", "w").write(str(other.pid))
        """,
        tmp_path,
    )
    assert code == 0
    psutil.Process(int((tmp_path / "pid").read_text())).kill()


WAITING = """
begin()
def stop(number, frame):
    print("got", signal.Signals(number).name)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
open(os.environ["LOGS"] + "/pid", "w").write(str(os.getpid()))
try:
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""


def waiting(
    tmp_path: Path, ignored: Sequence[signal.Signals] = ()
) -> tuple[subprocess.Popen[str], psutil.Process]:
    process = start(WAITING, tmp_path, ignored)
    file = tmp_path / "pid"
    while not (file.is_file() and file.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    return process, psutil.Process(int(file.read_text()))


def test_ctrl_c_reaches_both_and_is_no_error(tmp_path: Path) -> None:
    process, _ = waiting(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from the last checkpoint" in err
    assert "error" not in err


def test_ctrl_c_before_it_begins_is_one_line(tmp_path: Path) -> None:
    process = start("print('here', flush=True); time.sleep(600)", tmp_path)
    assert process.stdout.readline() == "here\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "stopped; the same command goes on from the last checkpoint"


def test_other_signals_are_the_childs_to_answer_and_end_as_a_shell_says(tmp_path: Path) -> None:
    """Ray's driver answers with the signal's number, others with whatever they like."""
    process, _ = waiting(tmp_path)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines() == [
        "stopped by SIGTERM; the same command goes on from the last checkpoint",
        f"logs of all processes: {tmp_path}",
    ]
    assert "got SIGTERM" in (tmp_path / "driver.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_child_does_not_outlive_its_console(tmp_path: Path) -> None:
    process, child = waiting(tmp_path)
    process.kill()
    process.communicate(timeout=60)
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
