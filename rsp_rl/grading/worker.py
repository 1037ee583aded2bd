"""The worker: ``python -m rsp_rl.grading.worker``, one JSON object a line on stdin and stdout.

Two processes. The *keeper* imports SymPy once, then waits for requests. Each request goes to its
*child*, a fork of the keeper with capped memory; a child that outlives the limit or dies is
replaced by a new fork within milliseconds, because the imports are already done. The keeper has
one thread and no other state, so forking it is safe, which a fork of a trainer or a vLLM server
would not be. It exits when its stdin closes, that is when the process that uses it ends.

The limit is on processor time, so that a busy machine does not turn a right answer into a wrong
one; a longer limit on wall time backs it up.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import select
import signal
import sys
import time

from rsp_rl.grading.structure import read

MEMORY_LIMIT = 1 << 30  # bytes of address space a child may add
_TICKS = os.sysconf("SC_CLK_TCK")
_FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.remove",
    "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown",
    "os.truncate", "subprocess.Popen", "socket.", "shutil.", "pty.spawn", "ctypes.", "urllib.",
    "tempfile.", "webbrowser.", "ftplib.", "smtplib.", "import.pickle", "pickle.find_class",
)  # fmt: skip


# Expressions of our own to parse while nobody waits. The parser builds its tables as it goes, which
# takes ten times as long as to use them, and the children that are forked afterwards inherit them.
_WARM_UP = (
    r"\frac{x+1}{2}\sin x-\sqrt{3}x^{2}y",
    r"e^{-2t}\cos(\pi t)+2^{n+1}-\ln|x|+C_{1}",
    r"\sqrt[3]{\frac{a^2b}{c}}\cdot\arctan x+\binom{2n}{n}-n!+\lfloor n/2\rfloor",
    r"\log_{2}(x-1)+\tan^{2}\theta",
    r"\frac{1}{2}\begin{pmatrix}1&x\\2&3\end{pmatrix}",
    r"c_{1} e^{3 x}+c_{2} x e^{-x}+c_{3} \cos 5 x+c_{4} \sin 5 x",
    r"e^{-7 t}(3 \cos 2 \sqrt{11} t-\frac{5}{\sqrt{13}} \sin 2 \sqrt{11} t)",
    r"\frac{\cos{(x)}\tan{(x)}}{\sin^{2}{(x)}+3}-\frac{\sec^{2}{(x)}}{\csc(x)+\cot(x)}",
    r"x^{3}(\ln |x|+c)-\ln(|\cos(x)+1|)/5",
    r"u{(t)}-4u(t)e^{-3t}+f(x)^{2}/2",
    r"(1-2x)/(3+\frac{x}{y})\times (\alpha+\beta)/\omega",
    r"\sum_{k=0}^{n-1} F_{k} F_{n-k-1}",
    r"\frac{d^{2} y}{d x^{2}}+\int_0^1 x dx+\sec x\tan x",
    r"a_{0} \sum_{m=0}^{\infty}(-1)^{m}[\prod_{j=0}^{m-1} \frac{2 j+1}{3 j+2}] \frac{x^{2 m}}{m !}",
    r"c_{1}\begin{pmatrix}2\\\cos 2 t\end{pmatrix} e^{-t}+t(e^{t}\begin{pmatrix}1\\0\end{pmatrix})",
    r"x \sqrt{x^{2}+2} / 2-\ln |x+\sqrt{x^{2}+2}| / 3+\frac{(\sin 3 x) / 4-x / 8+C}{2}",
    r"(2 x(x^{2}+3)+\frac{x^{3}+4 x}{2 \sqrt{2+(x^{2}+3)^{2}}}) / 3 \sqrt{(x^{2}+3)^{2}}",
    r"\omega_{d}^{2} e^{-\sigma \omega_{d} t} \sin (\omega_{d} \sqrt{2-\sigma^{2}} t)",
)
_IDLE = 0.25  # seconds without a request after which a worker warms up further


def decide(prediction: str, gold: str) -> dict[str, bool]:
    """Compare two normalised answers by algebra.

    Returns:
        ``equal`` and ``unparsable``.

    Raises:
        MemoryError: The cap on memory was met.
    """
    from rsp_rl.grading.equivalence import equal
    from rsp_rl.grading.symbolic import SymbolicComparer

    leaves = SymbolicComparer()
    try:
        decision = equal(read(prediction), read(gold), leaves)
    except MemoryError:
        raise  # nothing in this process can be relied on any more
    except Exception:  # a fault of ours or of a library; the process itself is sound
        return {"equal": False, "unparsable": True}
    return {"equal": bool(decision), "unparsable": leaves.unparsable and not decision}


def main() -> None:
    """Serve requests until stdin closes."""
    inbox, outbox = os.dup(0), os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # what a library prints must not end up among the answers
        os.dup2(silence, descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which closes stdin
    import rsp_rl.grading.symbolic  # noqa: F401 - what takes long, done before the first fork

    warm_up = list(_WARM_UP)
    with os.fdopen(inbox, "rb") as requests, os.fdopen(outbox, "wb") as answers:
        _send(answers, {"ready": True})
        child, idle = None, 0.0
        while True:
            while warm_up and not select.select([inbox], [], [], idle)[0]:
                _warm_up(warm_up.pop(0))
                if child is not None:
                    child.kill()
                    child = None
            line = requests.readline()
            if not line:
                break
            idle = _IDLE
            child = child or _Child()
            request = json.loads(line)
            reply = child.ask(line, request["cpu_limit"], request["wall_limit"])
            if "failure" in reply:
                child.kill()
                child = None
            _send(answers, reply)
        if child is not None:
            child.kill()


def _warm_up(expression: str) -> None:
    from rsp_rl.grading.symbolic import SymbolicComparer

    SymbolicComparer().relation((expression, "0"), (expression, "0"), 0)


class _Child:
    """A fork that answers requests, and the pipes to it."""

    def __init__(self) -> None:
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._write)
                os.close(self._read)
                _serve(there, back)
                status = 0
            finally:
                os._exit(status)
        os.close(there)
        os.close(back)

    def ask(self, line: bytes, cpu_limit: float, wall_limit: float) -> dict:
        """Pass on a request; ``{"failure": "timeout" or "crash"}`` if no answer comes."""
        started, used = time.monotonic(), _cpu_seconds(self.pid)
        try:
            os.write(self._write, line)
        except BrokenPipeError:
            return {"failure": "crash"}
        answer, wait = b"", min(cpu_limit, wall_limit)
        while True:
            if select.select([self._read], [], [], max(wait, 0.002))[0]:
                part = os.read(self._read, 1 << 16)
                if not part:
                    return {"failure": "crash"}
                answer += part
                if answer.endswith(b"\n"):
                    return json.loads(answer)
                continue
            left = cpu_limit - (_cpu_seconds(self.pid) - used)
            wait = min(left, wall_limit - (time.monotonic() - started))
            if wait <= 0:
                return {"failure": "timeout"}

    def kill(self) -> None:
        """End the child and reap it."""
        os.close(self._write)
        os.close(self._read)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(inbox: int, outbox: int) -> None:
    """The child: answer requests, one line each, with everything dangerous switched off."""
    with os.fdopen(inbox, "rb") as requests, os.fdopen(outbox, "wb") as answers:
        _restrict()
        for line in requests:
            request = json.loads(line)
            _send(answers, decide(request["prediction"], request["gold"]))


def _restrict() -> None:
    """Die with the keeper; cap memory; write no file; refuse commands, sockets and string eval."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import sympy.parsing.sympy_parser as sympy_parser

    # sympify(str) evaluates Python. latex2sympy hands it the digits of number tokens and no other
    # text; this makes sure of both.
    sympy_parser.parse_expr = _read_number_token
    sympy_parser.eval_expr = _refuse
    sys.addaudithook(_audit)


def _read_number_token(text: str, *_args: object, **_kwargs: object) -> object:
    import sympy

    if not re.fullmatch(r"\d+(?:\.\d*)?|\.\d+", text, re.ASCII):
        _refuse()
    return sympy.Integer(int(text)) if text.isdigit() else sympy.Float(text)


def _refuse(*_args: object, **_kwargs: object) -> None:
    raise PermissionError("text is never evaluated in the grader")


def _audit(event: str, args: tuple) -> None:
    if event == "open":
        mode = args[1]
        if isinstance(mode, str) and any(flag in mode for flag in "wax+"):
            raise PermissionError(event)
    elif event == "compile":
        if args[1] == "<string>":
            raise PermissionError(event)
    elif event.startswith(_FORBIDDEN_EVENTS):
        raise PermissionError(event)


def _send(stream, answer: dict) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")
    stream.flush()


def _cpu_seconds(pid: int) -> float:
    """Processor time a process has used; 0 where /proc does not tell, so that wall time rules."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
