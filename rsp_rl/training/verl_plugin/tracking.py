"""Trackers that fail without costing the run: what they miss is counted and said."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from verl.utils.tracking import Tracking

from rsp_rl.basics.errors import ConfigError, KnownError, RunBrokenError
from rsp_rl.training.trackers import OWN

logger = logging.getLogger(__name__)


class Guarded:
    """A tracker in whose place it stands: its errors end nothing.

    Args:
        name: As in `trainer.logger`.
        tracker: verl's object for it.
    """

    def __init__(self, name: str, tracker: Any) -> None:
        self._name, self._tracker = name, tracker
        self._asked = self._missed = 0

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log a step's metrics, or count them as missed.

        Raises:
            RunBrokenError: If the run's own record of its metrics cannot be written.
        """
        self._asked += 1
        try:
            self._tracker.log(*args, **kwargs)
        except Exception as error:  # trackers raise what their clients do
            self._missed += 1
            said = " ".join(f"{type(error).__name__}: {error}".split())
            if self._name == OWN:
                raise RunBrokenError(
                    f"the run's metrics cannot be written ({said}); make room there and start "
                    "again with the same run_dir"
                ) from error
            if self._missed == 1:
                logger.warning(
                    "the tracker %s failed (%s); the run goes on, and metrics.jsonl has what it "
                    "misses",
                    self._name,
                    said,
                )

    def finish(self, *args: Any, **kwargs: Any) -> None:
        """Close the tracker and say what it missed."""
        try:
            self._tracker.finish(*args, **kwargs)
        except Exception as error:
            logger.warning("the tracker %s could not be closed: %s", self._name, error)
        if self._missed:
            logger.warning(
                "the tracker %s missed %s of %s logs", self._name, self._missed, self._asked
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)


def opening_error(error: Exception, asked: Sequence[str]) -> KnownError:
    """A tracker that cannot be opened, in words; what was asked before the start it has passed.

    Args:
        error: verl's, or the tracker's client's.
        asked: Trackers of the config.

    Returns:
        A `RunBrokenError` where a retry can help: a host that did not answer.
    """
    kind = RunBrokenError if isinstance(error, OSError) else ConfigError
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return kind(
        f"a tracker of trainer.logger={list(asked)} cannot be opened ({said}); mend it, or leave "
        "it out"
    )


def guard_trackers(tracking: Tracking, asked: list[str]) -> None:
    """Guard all of a run's trackers, once; in place.

    Args:
        tracking: verl's.
        asked: Trackers of the config; those that verl went on without are named.
    """
    trackers = tracking.logger
    if all(isinstance(tracker, Guarded) for tracker in trackers.values()):
        return
    if missing := [name for name in asked if name not in trackers and name != "tracking"]:
        logger.warning("verl goes on without %s, which could not be opened", ", ".join(missing))
    for name, tracker in trackers.items():
        trackers[name] = Guarded(name, tracker)
