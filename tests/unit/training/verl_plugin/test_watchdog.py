"""A run whose part died, or that hangs, ends with one clear error."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator

import pytest
import ray

from rsp_rl.basics.errors import RunBrokenError
from rsp_rl.training.verl_plugin.watchdog import Progress, Roll, watch


@pytest.fixture(scope="module")
def small_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80_000_000)
    yield
    ray.shutdown()


@ray.remote(num_cpus=0)
class Part:
    """Stands for a rank: busy or idle, and killable."""

    def pid(self) -> int:
        return os.getpid()

    def work(self, seconds: float) -> None:
        time.sleep(seconds)


def test_work_ends_as_it_would_alone() -> None:
    done = []
    watch(lambda: done.append(1), Progress, timeout_s=None)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        watch(lambda: 1 // 0, Progress, timeout_s=60)


def test_a_phase_that_takes_too_long_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    progress, stop = Progress(), threading.Event()

    def hang_in_the_third_phase() -> None:
        for phase in ("generation of step 1", "log-probs of step 1", "the update of step 1"):
            progress.enter(phase)
            stop.wait(0.3)
        stop.wait()

    message = "no progress for 1 s during the update of step 1; started again with the same run_dir"
    with pytest.raises(RunBrokenError, match=message):
        watch(hang_in_the_third_phase, lambda: progress, timeout_s=1)
    assert "in hang_in_the_third_phase" in capsys.readouterr().err
    stop.set()


def test_slow_phases_that_go_on_are_no_error() -> None:
    progress = Progress()

    def slow() -> None:
        for number in range(8):
            progress.enter(f"phase {number}")
            time.sleep(0.3)

    watch(slow, lambda: progress, timeout_s=1)


@pytest.mark.usefixtures("small_ray")
def test_a_dead_part_ends_a_run_that_waits_for_it() -> None:
    """As verl's trainer waits for rollouts of an agent loop that is no more."""
    parts = {f"actor rank {rank}": Part.remote() for rank in range(2)}
    progress, stop = Progress(parts), threading.Event()
    progress.enter("generation of step 7")
    pid = ray.get(parts["actor rank 1"].pid.remote())
    parts["actor rank 0"].work.remote(600)  # busy is not dead
    threading.Timer(2, os.kill, (pid, 9)).start()
    begun = time.monotonic()
    with pytest.raises(RunBrokenError, match=r"^actor rank 1 died during generation of step 7; "):
        watch(stop.wait, lambda: progress, timeout_s=600)
    assert time.monotonic() - begun < 30
    stop.set()


@pytest.mark.usefixtures("small_ray")
def test_an_error_is_blamed_on_the_part_that_died() -> None:
    part = Part.remote()
    progress = Progress({"vLLM server 0": part})
    ray.get(part.pid.remote())

    def fail() -> None:
        ray.kill(part)
        raise ConnectionError("connection closed by peer")

    with pytest.raises(RunBrokenError, match="vLLM server 0 died"):
        watch(fail, lambda: progress, timeout_s=600)


@pytest.mark.usefixtures("small_ray")
def test_living_parts_are_asked_again_and_again() -> None:
    part, roll = Part.remote(), Roll()
    pid = ray.get(part.pid.remote())
    for _ in range(20):
        assert roll.dead({"part": part}) == {}
        time.sleep(0.05)
    os.kill(pid, 9)
    deadline = time.monotonic() + 30
    while not (dead := roll.dead({"part": part})):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert list(dead) == ["part"]


def test_the_error_travels_through_ray() -> None:
    error = pickle.loads(pickle.dumps(RunBrokenError("actor rank 1 died")))
    assert isinstance(error, RunBrokenError)
    assert str(error) == "actor rank 1 died"
