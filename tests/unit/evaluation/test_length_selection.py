"""The number of the chosen length comes from problems that did not choose it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import ConfigError
from rsp_rl.evaluation.length_selection import choose_length
from tests.unit.evaluation.made_runs import sample


def samples(right: dict[int, set[int]], problems: int = 10) -> dict[int, list]:
    """Samples by L; `right` names the problems that it gets right."""
    return {
        length: [sample(str(p), correct=p in chosen) for p in range(problems)]
        for length, chosen in right.items()
    }


def test_worked_by_hand() -> None:
    choice = choose_length(samples({20: set(range(10)), 10: set(), 15: set(range(10))}))
    assert (choice["length"], choice["accuracy"]) == (15, 1.0)  # the smaller of two equals
    assert choice["choosing"] == {"10": 0, "15": 1, "20": 1}
    assert (choice["accuracy_low"], choice["accuracy_high"], choice["problems"]) == (1, 1, 5)


@given(st.integers(0, 1000), st.integers(2, 40))
def test_halves_are_apart_and_whole(seed: int, problems: int) -> None:
    right = {length: set(range(0, problems, length)) for length in (1, 2, 3)}
    choice = choose_length(samples(right, problems), seed)
    held_out = choice["problems"]
    assert held_out == problems - problems // 2
    for length, chosen in right.items():
        both = choice["choosing"][str(length)] * (problems - held_out)
        both += choice["held_out"][str(length)] * held_out
        assert both == pytest.approx(len(chosen))


def test_selected_number_is_not_the_best_of_noise() -> None:
    """Lengths that are all the same: the reported accuracy is their mean, not their maximum."""
    rng = np.random.default_rng(0)
    reported, best = [], []
    for seed in range(150):
        right = {n: set(np.flatnonzero(rng.random(40) < 0.5).tolist()) for n in (10, 15, 20)}
        choice = choose_length(samples(right, 40), seed)
        reported.append(choice["accuracy"])
        best.append(choice["choosing"][str(choice["length"])])
    # 150 means of 20, of one seed: three standard errors.
    assert np.mean(reported) == pytest.approx(0.5, abs=0.03)
    assert np.mean(best) > 0.56


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="not asked the same problems"):
        choose_length({10: [sample("0"), sample("1")], 20: [sample("0"), sample("2")]})
    with pytest.raises(ConfigError, match="two problems at least"):
        choose_length({10: [sample("0")], 20: [sample("0")]})
