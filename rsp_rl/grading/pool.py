"""Worker processes that compare answers by algebra, shared by the threads of one process.

Workers are started with `subprocess` (never by forking a process that holds torch, CUDA or
threads), on first use; see `rsp_rl.grading.worker` for what they are. Safe from any thread, inside
Ray actors and after a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

CPU_LIMIT = 0.6
"""Seconds of processor time for one comparison."""

WALL_LIMIT = 8.0
"""Seconds on the clock for one comparison, for a machine that is too busy to grant the other."""

_START_LIMIT = 120.0
_CACHED = 65_536


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a worker said about two answers."""

    equal: bool = False
    unparsable: bool = False
    timed_out: bool = False
    crashed: bool = False


@dataclass(slots=True)
class Counters:
    """What happened in this process since it started."""

    timeouts: int = 0
    crashes: int = 0
    unparsable: int = 0


class Pool:
    """Up to ``size`` workers with a cache before them.

    Args:
        size: Workers that may run at once; further callers wait for a free one.
    """

    def __init__(self, size: int = 1) -> None:
        self.counters = Counters()
        self._lock = threading.Lock()
        self._free = threading.Semaphore(size)
        self._idle: list[_Worker] = []
        self._cache: OrderedDict[tuple[str, str], Outcome] = OrderedDict()
        self._started = False
        self.owner = os.getpid()

    def start(self) -> None:
        """Begin to start the first worker, without waiting for it; once."""
        if self._started:
            return
        with self._lock:
            if not self._started:
                self._started = True
                self._idle.append(_Worker())

    def resize(self, size: int) -> None:
        """Allow ``size`` workers from now on; not while comparisons run."""
        self._free = threading.Semaphore(size)

    def compare(self, prediction: str, gold: str) -> Outcome:
        """Compare two normalised answers by algebra. Never raises, never exceeds the limits."""
        key = (prediction, gold)
        with self._lock:
            outcome = self._cache.get(key)
        if outcome is None:
            outcome = self._ask(prediction, gold)
        with self._lock:
            self._cache[key] = outcome
            self._cache.move_to_end(key)
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
            self.counters.timeouts += outcome.timed_out
            self.counters.crashes += outcome.crashed
            self.counters.unparsable += outcome.unparsable
        return outcome

    def close(self) -> None:
        """End all idle workers."""
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.close()

    def _ask(self, prediction: str, gold: str) -> Outcome:
        self.start()
        with self._free:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = worker or _Worker()
            reply = worker.ask(prediction, gold)
            if reply is None:  # the keeper itself is gone or stuck
                worker.close()
                return Outcome(crashed=True)
            with self._lock:
                self._idle.append(worker)
        failure = reply.get("failure")
        return Outcome(
            equal=reply.get("equal", False),
            unparsable=reply.get("unparsable", False),
            timed_out=failure == "timeout",
            crashed=failure == "crash",
        )


class _Worker:
    """One worker process and the pipes to it."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
            "PYTHONPATH": os.pathsep.join([root, *(entry for entry in sys.path if entry)]),
            "PYTHONHASHSEED": "0",  # SymPy's orderings, hence verdicts, must not vary
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", "rsp_rl.grading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            bufsize=0,
        )
        self._ready = False

    def ask(self, prediction: str, gold: str) -> dict | None:
        """Send a request and wait for its reply, ``None`` if none comes."""
        request = {
            "prediction": prediction,
            "gold": gold,
            "cpu_limit": CPU_LIMIT,
            "wall_limit": WALL_LIMIT,
        }
        try:
            if not self._ready:
                if self._receive(_START_LIMIT) is None:
                    return None
                self._ready = True
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            return self._receive(WALL_LIMIT + 5)
        except OSError:
            return None

    def close(self) -> None:
        """End the process and its child, and reap it."""
        with contextlib.suppress(OSError):
            self._process.kill()
            self._process.stdin.close()
            self._process.stdout.close()
        self._process.wait()

    def _receive(self, limit: float) -> dict | None:
        deadline, answer = time.monotonic() + limit, b""
        output = self._process.stdout
        while not answer.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                return None
            part = os.read(output.fileno(), 1 << 16)
            if not part:
                return None
            answer += part
        return json.loads(answer)


_shared: Pool | None = None
_shared_lock = threading.Lock()


def shared() -> Pool:
    """The pool of this process; a forked child gets its own."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared.owner != os.getpid():
            _shared = Pool()
            atexit.register(_shared.close)
        return _shared
