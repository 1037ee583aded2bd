"""A run whose part died, or that hangs, ends with one clear error."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import ray

from rsp_rl.basics.errors import ConfigError, RunBrokenError
from rsp_rl.training.verl_plugin import watchdog
from rsp_rl.training.verl_plugin.watchdog import Progress, Roll, watch
from tests.waiting import until


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


class Clock:
    """Time as the watchdog reads it: it passes when a test says so, on a busy machine too."""

    def __init__(self) -> None:
        self.now, self.sleep = 0.0, time.sleep

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(watchdog, "POLL_S", 0.01)
    monkeypatch.setattr(watchdog, "time", clock := Clock())
    return clock


def watched(progress: Progress) -> tuple[Callable[[], Progress], Callable[[], None]]:
    """Progress to be watched, and a call that waits until it was looked at whole."""
    looks = []

    def look() -> Progress:
        looks.append(progress)
        return progress

    def wait() -> None:
        before = len(looks)
        until(lambda: len(looks) > before + 3)  # a round is two looks

    return look, wait


def test_work_ends_as_it_would_alone() -> None:
    done = []
    watch(lambda: done.append(1), Progress, timeout_s=None)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        watch(lambda: 1 // 0, Progress, timeout_s=60)


def test_a_phase_that_takes_too_long_is_named(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress, stop = Progress(), threading.Event()

    def hang_in_the_third_phase() -> None:
        for phase in ("generation of step 1", "log-probs of step 1", "the update of step 1"):
            progress.enter(phase)
            clock.now += 60
        clock.now += 41
        stop.wait()

    message = "no progress for 100 s during the update of step 1; started again with the same run_d"
    with pytest.raises(RunBrokenError, match=message):
        watch(hang_in_the_third_phase, lambda: progress, timeout_s=100)
    assert "in hang_in_the_third_phase" in capsys.readouterr().err
    stop.set()


def test_slow_phases_that_go_on_are_no_error(clock: Clock) -> None:
    progress = Progress()
    look, wait = watched(progress)

    def slow() -> None:
        for number in range(4):
            progress.enter(f"phase {number}")
            clock.now += 99
            wait()

    watch(slow, look, timeout_s=100)


@pytest.mark.usefixtures("small_ray")
def test_a_dead_part_ends_a_run_that_waits_for_it() -> None:
    """As verl's trainer waits for rollouts of an agent loop that is no more."""
    parts = {f"actor rank {rank}": Part.remote() for rank in range(2)}
    progress, stop = Progress(parts), threading.Event()
    progress.enter("generation of step 7")
    pid = ray.get(parts["actor rank 1"].pid.remote())
    parts["actor rank 0"].work.remote(600)  # busy is not dead
    look, wait = watched(progress)

    def kill_and_hang() -> None:
        wait()  # both were alive when they were first looked at
        os.kill(pid, 9)
        stop.wait()

    with pytest.raises(RunBrokenError, match=r"^actor rank 1 died during generation of step 7; "):
        watch(kill_and_hang, look, timeout_s=None)
    stop.set()


@ray.remote(num_cpus=0)
class Unmade:
    """Stands for a reward worker whose settings are wrong."""

    def __init__(self) -> None:
        raise AssertionError("max_resp_len must be larger than overlong_buffer.len")


@pytest.mark.usefixtures("small_ray")
def test_a_part_that_could_not_be_made_is_its_own_cause() -> None:
    progress = Progress({"reward worker 0": Unmade.remote()})
    stop = threading.Event()
    message = "^AssertionError: max_resp_len must be .*: reward worker 0 could not be made$"
    with pytest.raises(ConfigError, match=message):
        watch(stop.wait, lambda: progress, timeout_s=None)
    stop.set()


@pytest.mark.usefixtures("small_ray")
def test_an_error_is_blamed_on_the_part_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "GRACE_S", 300.0)  # Ray on a busy machine
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
    assert list(until(lambda: roll.dead({"part": part}))) == ["part"]


def test_the_error_travels_through_ray() -> None:
    error = pickle.loads(pickle.dumps(RunBrokenError("actor rank 1 died")))
    assert isinstance(error, RunBrokenError)
    assert str(error) == "actor rank 1 died"
