"""Ends a run that cannot go on: a part of it has died, or a phase of it takes for ever.

verl notices a dead process only where it happens to call it next. Its trainer asks for rollouts for
ever when the agent loop that was to make them has died, and trains on half a batch when one of two
vLLM servers has. So the trainer works in a thread of its process, and the main thread watches.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from rsp_rl.basics.errors import ConfigError, RunBrokenError
from rsp_rl.console import events
from rsp_rl.training.causes import comes_again, creation_error

POLL_S = 1.0

#: How long a failed trainer waits for Ray to say which of its parts died, if one did.
GRACE_S = 5.0

_MEND = "started again with the same run_dir, the run continues from its last checkpoint"


@dataclass
class Progress:
    """Where a run is: written by the trainer, read by the watchdog.

    Attributes:
        parts: The run's actors by the name that an error gives them.
    """

    parts: Mapping[str, ActorHandle] = field(default_factory=dict)
    _phase: tuple[str, float] = field(default_factory=lambda: ("start-up", time.monotonic()))

    def enter(self, phase: str) -> None:
        """Begin the next phase."""
        self._phase = (phase, time.monotonic())
        events.tell("phase", name=phase)

    @property
    def phase(self) -> str:
        """The phase that began last."""
        return self._phase[0]

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._phase[1]


class Roll:
    """Asks actors for a sign of life and lets the question stand.

    A busy actor answers when it is free; for a dead one Ray answers at once, with an error.
    """

    def __init__(self) -> None:
        self._asked: dict[str, ray.ObjectRef] = {}

    def dead(self, actors: Mapping[str, ActorHandle]) -> dict[str, str]:
        """The actors that have died, and what Ray knows of each death; does not wait."""
        for name in actors.keys() - self._asked.keys():
            self._asked[name] = actors[name].__ray_ready__.remote()
        if not self._asked:
            return {}
        references = list(self._asked.values())
        answers, _ = ray.wait(references, num_returns=len(references), timeout=0)
        dead = {}
        for name in [name for name, reference in self._asked.items() if reference in answers]:
            try:
                ray.get(self._asked.pop(name))
            except RayActorError as error:
                dead[name] = str(error)
        return dead


def watch(
    work: Callable[[], None], progress: Callable[[], Progress], timeout_s: float | None
) -> None:
    """Do a run's work in a thread, and end it when it cannot go on.

    Args:
        work: The run, from start to end.
        progress: Where it is.
        timeout_s: The longest that a phase may take, in seconds; `None` for no limit.

    Raises:
        RunBrokenError: If a part of the run died, or a phase took too long; the thread is then
            left to itself and ends with the process.
        ConfigError: If a part could not be made at all, for a reason that would come again.
        Exception: What `work` raised, if all parts live.
    """
    roll = Roll()
    outcome: Future[None] = Future()
    thread = threading.Thread(target=_settle, args=(work, outcome), name="trainer", daemon=True)
    thread.start()
    while not outcome.done():
        wait([outcome], timeout=POLL_S)
        if not outcome.done():
            _check_parts(roll, progress())
            _check_pace(thread, progress(), timeout_s)
    if outcome.exception():
        # Often the death of a part is what the others' errors come from: name that.
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline:
            _check_parts(roll, progress())
            time.sleep(POLL_S / 4)
    outcome.result()


def _settle(work: Callable[[], None], outcome: Future[None]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:
        outcome.set_exception(error)


def _check_parts(roll: Roll, progress: Progress) -> None:
    if dead := roll.dead(progress.parts):
        for name, detail in dead.items():
            if (made := creation_error(detail)) and comes_again(made):
                raise ConfigError(f"{made}: {name} could not be made")
        details = "; ".join(f"{name}: {' '.join(said.split())}" for name, said in dead.items())
        raise RunBrokenError(
            f"{' and '.join(dead)} died during {progress.phase}; {_MEND}. Ray says: {details}"
        )


def _check_pace(thread: threading.Thread, progress: Progress, timeout_s: float | None) -> None:
    if timeout_s is None or progress.seconds <= timeout_s:
        return
    if frame := sys._current_frames().get(thread.ident):
        print("the trainer hangs here:\n" + "".join(traceback.format_stack(frame)), file=sys.stderr)
    raise RunBrokenError(
        f"no progress for {timeout_s:g} s during {progress.phase}; {_MEND}. If that phase is only "
        "slow, raise trainer.v1.rsp_sync.phase_timeout_s"
    )
