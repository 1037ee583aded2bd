"""Numbers of answers with thoughts, by hand."""

from __future__ import annotations

import pytest

from rsp_rl.evaluation.latent_answers import Judged, summarise


def judged(*right: bool, thoughts: int = 2, seconds: float = 0.5) -> list[Judged]:
    return [Judged(one, thoughts, thoughts + 3, seconds) for one in right]


def test_one_run() -> None:
    summary = summarise([judged(True, True, False, True)])
    assert summary.problems == 4
    assert (summary.accuracy, summary.thoughts, summary.tokens) == (0.75, 2, 5)
    assert summary.seconds_per_problem == 0.5
    assert summary.accuracy_low < 0.75 < summary.accuracy_high
    assert set(summary.as_dict()) == {
        *("problems", "accuracy", "accuracy_low", "accuracy_high"),
        *("thoughts", "tokens", "seconds_per_problem"),
    }


def test_runs_are_averaged_by_problem() -> None:
    """Two runs that are right on other halves: each problem's mean is a half, without spread."""
    summary = summarise([judged(True, False), judged(False, True, thoughts=4, seconds=1.5)])
    assert (summary.accuracy, summary.accuracy_low, summary.accuracy_high) == (0.5, 0.5, 0.5)
    assert (summary.thoughts, summary.tokens) == (3, 6)
    assert summary.seconds_per_problem == pytest.approx(1.0)


def test_the_same_draws_each_time() -> None:
    runs = [judged(*(number % 3 == 0 for number in range(50)))]
    assert summarise(runs) == summarise(runs)
