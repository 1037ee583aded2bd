"""Waiting for a condition: as long as a busy machine takes, and no longer."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds. Far beyond what any condition takes, even where ten processes share a core: whoever
#: waits so long waits for something that does not come.
LIMIT = 300.0


def until(condition: Callable[[], T], limit: float = LIMIT) -> T:
    """Ask again and again.

    Args:
        condition: Asked every 10 ms.
        limit: Seconds after which the test fails.

    Returns:
        The first answer that is true.
    """
    deadline = time.monotonic() + limit
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {limit:g} s"
        time.sleep(0.01)
    return answer
