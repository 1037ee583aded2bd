"""Processes forked from a Python that has imported the stack: they are what was asked for."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from rsp_rl.training.preloaded_python import Preloaded
from tests.waiting import LIMIT, until


@pytest.fixture(scope="module")
def python() -> Iterator[Preloaded]:
    with Preloaded({"FROM_SERVER": "1"}, modules=["numpy", "torch"]) as preloaded:
        yield preloaded


def run(python: Preloaded, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [python.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, **options)


def code(python: Preloaded, code: str, *arguments: str, **options) -> str:
    result = run(python, "-c", code, *arguments, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_has_imported_already(python: Preloaded) -> None:
    assert code(python, "import sys; print('torch' in sys.modules)") == "True"


def test_arguments_environment_and_folder(python: Preloaded, tmp_path) -> None:
    """Those of the process that asks, not the server's."""
    found = code(
        python,
        "import os, sys; print(sys.argv, os.getcwd(), os.environ.get('OURS'),"
        " os.environ.get('FROM_SERVER'))",
        "a b",
        "'c'",
        cwd=tmp_path,
        env={"OURS": "ours"},
    )
    assert found == f"{['-c', 'a b', chr(39) + 'c' + chr(39)]} {tmp_path} ours None"


def test_a_script(python: Preloaded, tmp_path) -> None:
    """As `__main__`, with its folder first on the path."""
    (tmp_path / "beside.py").write_text("value = 7")
    script = tmp_path / "script.py"
    script.write_text("import beside, sys\nprint(__name__, beside.value, sys.argv[1:])")
    assert run(python, str(script), "x").stdout == "__main__ 7 ['x']\n"


def test_streams_and_other_open_files(python: Preloaded) -> None:
    """multiprocessing hands its pipes over by number."""
    reading, writing = os.pipe()
    work = "import os, sys; os.write(int(sys.argv[1]), sys.stdin.read().encode())"
    code(python, work, str(writing), input="through", pass_fds=[writing])
    os.close(writing)
    assert os.read(reading, 100) == b"through"
    os.close(reading)


@pytest.mark.parametrize("status", [0, 3])
def test_exit_status(python: Preloaded, status: int) -> None:
    assert run(python, "-c", f"raise SystemExit({status})").returncode == status


def test_an_error_is_printed(python: Preloaded) -> None:
    result = run(python, "-c", "raise ValueError('why')")
    assert result.returncode == 1
    assert "ValueError: why" in result.stderr


def test_a_killed_fork(python: Preloaded) -> None:
    result = run(python, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert result.returncode == -signal.SIGKILL


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_ending_the_asking_process_ends_the_fork(python: Preloaded, by: signal.Signals) -> None:
    work = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    command = [python.executable, "-c", work]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        fork = int(process.stdout.readline())
        process.send_signal(by)
        assert process.wait(LIMIT) == -by
        process.stdout.read()  # the fork holds its other end
    until(lambda: not psutil.pid_exists(fork))  # its parent has heard of it


def test_an_asking_process_that_is_gone_leaves_the_server_alone() -> None:
    """Killed while the server imports, or connected and silent."""
    with Preloaded(modules=["numpy", "torch"]) as preloaded:
        command = [preloaded.executable, "-c", "import time; time.sleep(600)"]
        killed = [subprocess.Popen(command) for _ in range(2)]
        time.sleep(0.5)  # connected by then, most often; earlier or later must be survived too
        for process in killed:
            process.kill()
            process.wait()
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(os.path.join(os.path.dirname(preloaded.executable), "socket"))
        assert code(preloaded, "import sys; print('torch' in sys.modules)") == "True"
        assert preloaded._server.poll() is None


def test_threads_are_those_asked_for(python: Preloaded) -> None:
    """OpenMP reads the variable when it is loaded, in the server; one, as Ray's workers have it."""
    work = "import torch; print(torch.get_num_threads())"
    assert code(python, work, env={"OMP_NUM_THREADS": "3"}) == "3"
    assert code(python, work, env={}) == os.environ.get("OMP_NUM_THREADS", "1")


def test_process_groups(python: Preloaded) -> None:
    """A fork leads one of its own, which its children share: who ends one ends no other fork."""
    work = (
        "import multiprocessing, os\n"
        "with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "    print(os.getpid(), os.getpgrp(), pool.apply(os.getpgrp))"
    )
    first, second = code(python, work).split(), code(python, work).split()
    assert len(set(first)) == len(set(second)) == 1
    assert first != second


def test_title(python: Preloaded) -> None:
    """vLLM names its processes; the fault tests and people find them by it."""
    work = (
        "import pathlib, setproctitle\n"
        "setproctitle.setproctitle('VLLM::EngineCore')\n"
        "print(pathlib.Path('/proc/self/cmdline').read_text().split(chr(0))[0])"
    )
    assert code(python, work) == "VLLM::EngineCore"


def test_random_numbers_differ(python: Preloaded) -> None:
    work = "import random, numpy; print(random.random(), numpy.random.random())"
    first, second = code(python, work).split(), code(python, work).split()
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_several_at_once(python: Preloaded) -> None:
    """Each begins while the others are there."""
    command = [python.executable, "-c", "import sys; print('here', flush=True); sys.exit(input())"]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **options) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["here\n"] * 4
    for process in processes:
        process.communicate("")
    assert [process.returncode for process in processes] == [1] * 4


def test_multiprocessing_spawns_by_it(python: Preloaded) -> None:
    """A fork's own processes are forks of the server too."""
    work = (
        "import multiprocessing\n"
        "context = multiprocessing.get_context('spawn')\n"
        "with context.Pool(1) as pool:\n"
        "    modules = pool.apply(eval, ('sorted(__import__(\"sys\").modules)',))\n"
        "print('torch' in modules)"
    )
    assert code(python, work) == "True"


def test_unknown_arguments_are_python_s_own(python: Preloaded) -> None:
    result = run(python, "-m", "platform", "terse")
    assert result.returncode == 0
    assert result.stdout


def test_imports_of_ray_are_left_to_the_workers() -> None:
    """Ray's library keeps the variables that it found when it was imported."""
    with Preloaded(modules=["torch", "ray"]) as preloaded:
        assert code(preloaded, "import sys; print('ray' in sys.modules)") == "False"


@pytest.mark.slow
def test_all_that_is_preloaded_is_there_and_does_without_ray() -> None:
    with Preloaded() as preloaded:
        found = code(preloaded, "import sys; print('vllm' in sys.modules, 'ray' in sys.modules)")
    assert found == "True False"


def test_without_a_server() -> None:
    """The plain Python that was asked for."""
    with Preloaded(modules=["no_such_module"]) as preloaded:
        preloaded._server.wait()
        assert code(preloaded, "import sys; print('torch' in sys.modules)") == "False"


def test_ends_with_its_forks() -> None:
    """Not before: who waits for a fork would take it for dead."""
    with Preloaded(modules=["numpy", "torch"]) as preloaded:
        command = [preloaded.executable, "-c", "input()"]
        fork = subprocess.Popen(command, stdin=subprocess.PIPE)
        code(preloaded, "")  # by then it serves
    with pytest.raises(subprocess.TimeoutExpired):
        preloaded._server.wait(1)
    fork.communicate(b"\n")
    assert fork.returncode == 0
    assert preloaded._server.wait(LIMIT) == 0
