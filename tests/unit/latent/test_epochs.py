"""What an epoch trains on."""

from __future__ import annotations

from collections import Counter

import pytest

from rsp_rl.latent.epochs import batches, epoch_rows
from rsp_rl.latent.layout import Markers
from rsp_rl.latent.problem_tokens import ProblemTokens
from rsp_rl.latent.settings import Settings

MARKERS = Markers(90, 91, 92)
PROBLEMS = [ProblemTokens((100 + n,), ((10, 11), (20, 21), (30, 31)), (40,)) for n in range(400)]


def rows(epoch, **settings):
    return epoch_rows(PROBLEMS, Settings(**settings), MARKERS, epoch)


def test_every_problem_once_in_another_order_each_epoch_the_same_each_time():
    first, second = rows(0, method="cot"), rows(1, method="cot")
    assert sorted(first, key=lambda row: row.token_ids) == sorted(
        second, key=lambda row: row.token_ids
    )
    assert len({row.token_ids[0] for row in first}) == len(PROBLEMS)
    assert first != second
    assert first == rows(0, method="cot")
    assert first != rows(0, method="cot", seed=1)


def test_mixed_stages_are_drawn_evenly_for_their_share():
    found = Counter(row.thoughts for row in rows(20, uniform_stages=0.8, max_stage=3))
    # A fifth is at the epoch's stage of 3 thoughts, the rest at 0, 1, 2 or 3 steps.
    assert found[0] == pytest.approx(80, abs=30)
    assert found[1] == pytest.approx(80, abs=30)
    assert found[3] == pytest.approx(80 + 80, abs=40)
    assert sum(found.values()) == 400


def test_icot_takes_more_away_each_epoch_and_sometimes_one_more_still():
    def removed(epoch, smoothing):
        settings = {"method": "icot", "icot_tokens_per_epoch": 2, "icot_smoothing": smoothing}
        return Counter(8 - len(row.token_ids) for row in rows(epoch, **settings))

    assert removed(0, 4.0) == {0: 400}  # the first epoch is plain CoT
    assert removed(1, 0.0) == {2: 400}
    assert removed(2, 0.0) == {4: 400}
    assert removed(9, 0.0) == {6: 400}  # the answer stays
    smoothed = removed(1, 1.0)
    assert set(smoothed) == {2, 3, 4, 5, 6}
    # P(o) ~ exp(-o): 63 % none, 23 % one token more.
    assert smoothed[2] == pytest.approx(253, abs=40)
    assert smoothed[3] == pytest.approx(93, abs=35)


def test_the_last_batch_may_be_smaller():
    assert [len(part) for part in batches(rows(0), 150)] == [150, 150, 100]
