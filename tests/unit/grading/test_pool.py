"""The worker processes: killed, replaced, capped, gone with their owner."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from rsp_rl.grading import pool as pool_module
from rsp_rl.grading.pool import Pool
from tests.unit.benchmark_files import REPO
from tests.waiting import until


@pytest.fixture
def pool():
    pool = Pool()
    yield pool
    pool.close()


def _run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPO), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def _child(pool):
    """The child of the pool's worker, which has none for a while when it warms up."""
    keeper = pool._idle[0]._process.pid

    def of_a_request():
        number = next(_numbers)  # one that is in no cache
        assert pool.compare(rf"\sin 2x+{number}", rf"{number}+\sin 2x").equal
        return _children(keeper)

    (child,) = until(of_a_request)
    return child


_numbers = itertools.count(100)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_importing_the_grader_is_cheap():
    heavy = ("sympy", "mpmath", "math_verify", "latex2sympy2_extended", "antlr4", "torch", "verl")
    code = (
        "import sys, rsp_rl.grading, rsp_rl.grading.reward, rsp_rl.commands.grade\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    assert _run(code).stdout.strip() == "[]"


def test_a_worker_is_reused(pool):
    assert pool.compare(r"\sin 2x+1", r"1+\sin 2x").equal
    keeper = pool._idle[0]._process.pid
    assert pool.compare(r"\sin 2x+2", r"2+\sin 2x").equal
    assert [worker._process.pid for worker in pool._idle] == [keeper]


def test_a_child_that_runs_too_long_is_replaced_at_once(pool, monkeypatch):
    assert pool.compare(r"\sin 2x+1", r"1+\sin 2x").equal
    keeper = pool._idle[0]._process.pid
    child = _child(pool)
    monkeypatch.setattr(pool_module, "CPU_LIMIT", 0.0)
    assert pool.compare(r"\sin 2x+\cos x+\tan x+3", r"x+\cos x").timed_out
    monkeypatch.undo()
    assert not _alive(child)
    assert pool.compare(r"\sin 2x+4", r"4+\sin 2x").equal
    # At once: by a fork of the same keeper, which has imported everything.
    assert pool._idle[0]._process.pid == keeper
    assert pool.counters.timeouts == 1


def test_a_child_that_dies_is_counted_and_replaced(pool):
    assert pool.compare(r"\sin 2x+1", r"1+\sin 2x").equal

    def crashed():
        # A worker that warms up just now has taken another child.
        with contextlib.suppress(ProcessLookupError):
            os.kill(_child(pool), signal.SIGKILL)
        number = next(_numbers)
        return pool.compare(rf"\sin 2x+{number}", rf"{number}+\sin 2x").crashed

    until(crashed)
    assert pool.compare(r"\sin 2x+3", r"3+\sin 2x").equal
    assert pool.counters.crashes == 1


def test_a_keeper_that_dies_is_replaced(pool):
    assert pool.compare(r"\sin 2x+1", r"1+\sin 2x").equal
    pool._idle[0]._process.kill()
    assert pool.compare(r"\sin 2x+2", r"2+\sin 2x").crashed
    assert pool.compare(r"\sin 2x+3", r"3+\sin 2x").equal


def test_verdicts_are_cached(pool, monkeypatch):
    assert pool.compare(r"\sin 2x+1", r"1+\sin 2x").equal
    monkeypatch.setattr(pool, "_ask", None)
    assert pool.compare(r"\sin 2x+1", r"1+\sin 2x").equal


def test_threads_share_a_pool(pool):
    results = {}

    def work(n):
        results[n] = pool.compare(rf"\sin 2x+{n}", rf"{n}+\sin 2x").equal

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)


def test_no_process_outlives_its_owner():
    code = (
        "import os\n"
        "from rsp_rl.grading import pool\n"
        "p = pool.shared(); p.compare(r'\\sin 2x+1', r'1+\\sin 2x')\n"
        "pid = p._idle[0]._process.pid\n"
        "child = open(f'/proc/{pid}/task/{pid}/children').read().split()[0]\n"
        "print(pid, child, flush=True)\n"
        "%s"
    )
    for end in ("", "os._exit(1)", "os.kill(os.getpid(), 9)"):
        pids = [int(pid) for pid in _run(code % end).stdout.split()]
        assert len(pids) == 2
        until(lambda: not any(map(_alive, pids)))  # noqa: B023 - called here and now


def test_no_zombie_is_left(pool):
    pool.compare(r"\sin 2x+1", r"1+\sin 2x")
    keeper = pool._idle[0]._process.pid
    pool.close()
    assert keeper not in _children(os.getpid())


def _worker(requests):
    lines = "".join(json.dumps({"cpu_limit": 5, "wall_limit": 20, **r}) + "\n" for r in requests)
    done = subprocess.run(
        [sys.executable, "-m", "rsp_rl.grading.worker"],
        input=lines,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()[1:]]


def test_a_worker_answers_over_its_pipes():
    assert _worker([{"prediction": r"\sin 2x+1", "gold": r"1+\sin 2x"}]) == [
        {"equal": True, "unparsable": False}
    ]


def test_a_fault_in_a_comparison_is_unparsable_and_the_child_lives_on():
    assert _worker(
        [
            {"prediction": 5, "gold": "x+1"},  # not a text: read() raises
            {"prediction": r"\sin 2x+1", "gold": r"1+\sin 2x"},
        ]
    ) == [{"equal": False, "unparsable": True}, {"equal": True, "unparsable": False}]


SABOTAGE = r"""
import os, sys
from rsp_rl.grading import worker
worker._restrict()
def tried(action):
    try:
        action()
    except (PermissionError, OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
import sympy
print([
    tried(lambda: open(sys.argv[1], "w").write("x")),
    tried(lambda: os.system("true")),
    tried(lambda: __import__("subprocess").run(["true"])),
    tried(lambda: __import__("socket").socket()),
    tried(lambda: eval("1+1")),
    tried(lambda: bytearray(3 << 30)),
    tried(lambda: sympy.sympify("x+1")),
    tried(lambda: sympy.Number("__import__('os')")),
    sympy.Number("12") + sympy.Number("0.5"),
])
"""


def test_a_child_can_do_no_harm(tmp_path):
    """The last line of defence: nothing in the text should ever get this far."""
    done = subprocess.run(
        [sys.executable, "-c", SABOTAGE, str(tmp_path / "file")],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == (
        "['PermissionError', 'PermissionError', 'PermissionError', 'PermissionError', "
        "'PermissionError', 'MemoryError', 'PermissionError', 'PermissionError', 12.5000000000000]"
    ), done.stderr
    assert not (tmp_path / "file").exists()
