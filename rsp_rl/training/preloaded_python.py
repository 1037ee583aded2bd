"""A Python that has imported the libraries already, for the processes of a training on a CPU.

verl and vLLM start about nine processes, most of them one after the other, and each imports torch,
transformers and vLLM: 5 to 17 s of a laptop's core every time, most of the way to the first step. A
server imports them once and forks. To whoever starts a process it looks like a Python executable:
Ray takes it as `py_executable` of the runtime environment, multiprocessing (for vLLM's engine)
through `set_executable`. That executable is this file, run by a bare Python: it hands what it was
started with (arguments, environment, folder, open files) to the server and ends as the fork ends.
Without a server, as on another node, it becomes the Python that was asked for: slower, no other.

Not for GPUs: there the imports are little beside loading the model, and a process that has begun to
use CUDA must not be forked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

# Nothing else up here: this is all that a process which asks for a fork imports.

#: What the processes of a run import between them. Not Ray, which reads its variables when it is
#: imported, and so nothing that imports Ray.
MODULES = (
    "torch",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.utils.tensorboard",
    "transformers.models.qwen2.modeling_qwen2",
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.qwen2",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.engine.output_processor",
    "vllm.v1.worker.cpu_worker",
    "aiohttp",
    "datasets",
    "hydra",
    "peft",
    "tensordict",
    "torchdata.stateful_dataloader",
)

_HEADER = struct.Struct("!I")
_NUMBER = struct.Struct("!i")
#: Flags of Python, which multiprocessing repeats, that make no difference to a fork.
_NO_MATTER = ("-B", "-u")
#: Linux passes no more at a time.
_MOST_FILES = 253


# ---- the process that asks ----------------------------------------------------------------------


def ask(path: str, arguments: list[str]) -> None:
    """Be `python *arguments`, a fork of the server at `path`; this process if it is not there."""
    connection = socket.socket(socket.AF_UNIX)
    fork = _send(connection, path, arguments)
    if fork is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    signal.signal(signal.SIGTERM, lambda *_: os.kill(fork, signal.SIGTERM))
    status = _read_number(connection)
    if status is not None and os.WIFSIGNALED(status):
        with suppress(OSError):  # SIGKILL has no other handler
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(1 if status is None else os.waitstatus_to_exitcode(status))


def _send(connection: socket.socket, path: str, arguments: list[str]) -> int | None:
    """The fork's process id; None where there is no server or it does not know such arguments."""
    while arguments and arguments[0] in _NO_MATTER:
        arguments = arguments[1:]
    code_or_script = arguments and (arguments[0] == "-c" or not arguments[0].startswith("-"))
    if not code_or_script:
        return None
    files = [int(name) for name in os.listdir("/proc/self/fd")]
    files = [n for n in files if n != connection.fileno() and os.path.exists(f"/proc/self/fd/{n}")]
    request = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "group": os.getpgrp(),
        "files": files,
    }
    body = json.dumps(request).encode()
    try:
        connection.connect(path)
        socket.send_fds(connection, [_HEADER.pack(len(body))], files)
        connection.sendall(body)
        return _read_number(connection)  # comes when the server has imported everything
    except OSError:
        return None


def _read_number(connection: socket.socket) -> int | None:
    answer = connection.recv(_NUMBER.size)
    return _NUMBER.unpack(answer)[0] if answer else None


# ---- the server ---------------------------------------------------------------------------------


class Preloaded:
    """The server, to the process that needs it: a context.

    Attributes:
        executable: File to start as one starts Python.
    """

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        modules: Sequence[str] = MODULES,
        *,
        output: int | None = None,
    ) -> None:
        """Start it; it imports while the caller goes on.

        Args:
            environment: Variables that the imports read, beside this process's.
            modules: What to import.
            output: Open file that what it prints goes to; this process's own by default.
        """
        import subprocess
        import tempfile

        self._folder = tempfile.TemporaryDirectory(prefix="rsp_rl_")
        path = os.path.join(self._folder.name, "socket")
        self.executable = os.path.join(self._folder.name, "python")
        with open(self.executable, "w") as script:
            ask_here = f"{sys.executable} -S -E {os.path.abspath(__file__)} {path}"
            script.write(f'#!/bin/sh\nexec {ask_here} "$@"\n')
        os.chmod(self.executable, 0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(64)
            number = listener.fileno()
            command = [sys.executable, os.path.abspath(__file__), "serve"]
            self._server = subprocess.Popen(
                [*command, str(number), self.executable, *modules],
                stdin=subprocess.PIPE,  # ends when this process does, however that comes about
                stdout=output,
                stderr=output,
                pass_fds=[number],
                # OpenMP reads it when torch loads it; Ray sets it later, to 1 for verl's workers.
                env={"OMP_NUM_THREADS": "1", **os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is the trainer's to handle
            )

    def __enter__(self) -> Preloaded:
        return self

    def __exit__(self, *_: object) -> None:
        """Start no more. The server ends when its last fork has, which is Ray's to end."""
        self._server.stdin.close()
        self._server.terminate()  # ends its imports, and nothing after those
        self._folder.cleanup()


def serve(listener_fd: int, executable: str, modules: Sequence[str]) -> None:
    """Import everything; then fork for each that asks, until standard input and all forks end.

    Returns in each fork, too, when that has done what it was asked for.
    """
    import gc
    import importlib

    os.close(os.pidfd_open(os.getpid()))  # a system that has none is found out now
    sys.path[0] = ""  # was this file's folder, whose modules are rsp_rl's
    before = dict(os.environ)
    for module in modules:
        importlib.import_module(module)
    if "ray" in sys.modules:
        sys.exit(f"{modules} import Ray: its workers must do so themselves, and now they do")
    from_imports = {name: v for name, v in os.environ.items() if before.get(name) != v}
    gc.collect()
    gc.freeze()  # a fork's collections leave these objects, and so the shared pages, alone
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    asked = _fork_on_request(socket.socket(fileno=listener_fd))
    if asked is not None:
        request, files = asked
        request["environment"] = {**from_imports, **request["environment"]}
        _become(request, files, executable)


def _fork_on_request(listener: socket.socket) -> tuple[dict, list[int]] | None:
    """In a fork: what was asked for, and the files that came with it. None when all have ended."""
    import selectors

    forks: dict[int, tuple[int, socket.socket]] = {}  # by file that tells of its end
    with selectors.DefaultSelector() as selector, listener:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while forks or 0 in selector.get_map():
            key, _ = selector.select()[0]  # one at a time: it may undo what made the next ready
            if key.fd == 0:
                selector.unregister(0)
                selector.unregister(listener)
                listener.close()
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                try:
                    request, files = _receive(connection)
                except ConnectionError:  # who asked is gone
                    connection.close()
                    continue
                fork = os.fork()
                if fork == 0:
                    for ended, (_, other) in forks.items():
                        os.close(ended)
                        other.close()
                    connection.close()
                    return request, files
                for file in files:
                    os.close(file)
                ended = os.pidfd_open(fork)
                forks[ended] = fork, connection
                selector.register(ended, selectors.EVENT_READ)
                selector.register(connection, selectors.EVENT_READ, fork)
                _tell(connection, fork)
            elif key.data is not None:  # who asked was killed
                selector.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)
            else:
                fork, connection = forks.pop(key.fd)
                selector.unregister(key.fd)
                os.close(key.fd)
                if connection in selector.get_map():
                    selector.unregister(connection)
                _, status = os.waitpid(fork, 0)
                _tell(connection, status)
                connection.close()
    return None


def _tell(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # who asked is gone, which the selector sees too
        connection.sendall(_NUMBER.pack(number))


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    """The request and the open files.

    Raises:
        ConnectionError: Who asked is gone.
    """
    header, files, _, _ = socket.recv_fds(connection, _HEADER.size, _MOST_FILES)
    size = _HEADER.unpack(header)[0] if header else 1
    body = b""
    while len(body) < size:
        part = connection.recv(size - len(body))
        if not part:
            for file in files:
                os.close(file)
            raise ConnectionError
        body += part
    return json.loads(body), files


def _become(request: dict, files: list[int], executable: str) -> None:
    """Be the Python that was asked for."""
    import multiprocessing
    import runpy
    import types

    import numpy as np
    import torch

    try:
        os.setpgid(0, request["group"])  # with who asked, where that is a fork's child
    except OSError:
        os.setpgid(0, 0)  # Ray ends a worker with its group, which must not be the server's
    _put_in_place(files, request["files"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(request["folder"])
    what, *arguments = request["arguments"]
    if what == "-c":  # not a worker of Ray, which finds the place for its title by itself
        _find_place_of_title()
    os.environ.clear()
    os.environ.update(request["environment"])
    np.random.seed()  # all forks' would be the same; Python's own is seeded at a fork
    threads = os.environ.get("OMP_NUM_THREADS")  # OpenMP read it when it was loaded
    if threads:
        torch.set_num_threads(int(threads))
    multiprocessing.set_executable(executable)
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    if what == "-c":
        code, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.path[0] = ""
        exec(code, vars(main))
    else:
        sys.argv = [what, *arguments]
        sys.path[0] = os.path.dirname(what)
        runpy.run_path(what, run_name="__main__")


def _find_place_of_title() -> None:
    """It is where the environment was when the server began, and is found while that is there."""
    with suppress(ImportError):
        import setproctitle

        setproctitle.getproctitle()


def _put_in_place(files: list[int], numbers: list[int]) -> None:
    """Give open files the numbers that they had in the process that sent them."""
    import fcntl

    beyond = max(numbers) + 1
    out_of_the_way = [fcntl.fcntl(file, fcntl.F_DUPFD, beyond) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(out_of_the_way, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        ask(sys.argv[1], sys.argv[2:])
