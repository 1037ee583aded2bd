"""The grader on a machine that other work keeps busy."""

import pytest

from rsp_rl.grading import pool


@pytest.fixture(autouse=True)
def _limit_processor_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdict may come of the limit on the clock, which is for a machine that is too busy."""
    monkeypatch.setattr(pool, "WALL_LIMIT", 300.0)
