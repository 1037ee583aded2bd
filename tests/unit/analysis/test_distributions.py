"""Entropy, top-1 and varentropy: distributions, bins and averages by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.analysis.averages import mean_and_sem
from rsp_rl.analysis.conditions import Condition
from rsp_rl.analysis.distributions import bin_means, first_tokens, summarise, token_metrics
from rsp_rl.cli import main
from tests.tolerances import rounding


def test_metrics_by_hand() -> None:
    certain, uniform, uneven = [0.0, -math.inf, -math.inf, -math.inf], [2.0] * 4, [3 / 4, 1 / 4]
    uneven = [math.log(p) for p in uneven] + [-math.inf] * 2
    entropy, top1, varentropy = token_metrics(torch.tensor([certain, uniform, uneven]))
    h = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    v = 0.75 * (math.log(0.75) + h) ** 2 + 0.25 * (math.log(0.25) + h) ** 2
    few = rounding(8, size=2)
    assert entropy.tolist() == pytest.approx([0, math.log(4), h], abs=few)
    assert top1.tolist() == pytest.approx([1, 0.25, 0.75], abs=few)
    assert varentropy.tolist() == pytest.approx([0, 0, v], abs=few)


def test_metrics_in_blocks_are_those_of_each_row() -> None:
    logits = 5 * torch.randn(600, 50, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(logits.double(), -1)
    entropy, top1, varentropy = token_metrics(logits)
    # Logits of up to 20; in the variance their squares, times p.
    assert entropy == pytest.approx((-p * p.log()).sum(-1).numpy(), abs=rounding(8, size=20))
    assert top1 == pytest.approx(p.max(-1).values.numpy(), abs=rounding(4, size=20))
    second = (p * p.log().square()).sum(-1).numpy()
    assert varentropy == pytest.approx(second - entropy**2, abs=rounding(4, size=20**2))


@given(st.integers(1, 200), st.integers(1, 60))
def test_bins_hold_every_token_once(n: int, bins: int) -> None:
    values = np.arange(n, dtype=float)[None]
    means = bin_means(values, bins)
    assert means.shape == (1, bins)
    counts = np.bincount(np.arange(n) * bins // n, minlength=bins)
    assert (np.isnan(means[0]) == (counts == 0)).all()
    assert np.nansum(means[0] * counts) == pytest.approx(values.sum())
    if n >= bins:
        assert counts.max() - counts.min() <= 1
        assert (np.diff(means[0]) > 0).all()


def test_bins_by_hand() -> None:
    assert bin_means(np.array([[1.0, 2, 3, 4, 5]]), 2).tolist() == [[2, 4.5]]
    short = bin_means(np.array([[1.0, 2]]), 4)[0]
    assert short[[0, 2]].tolist() == [1, 2]
    assert np.isnan(short[[1, 3]]).all()
    assert [first_tokens(n) for n in (1, 20, 21, 40, 100)] == [1, 1, 2, 2, 5]


def test_averages_are_over_problems() -> None:
    # A problem of two samples (means 1 and 3) and one of one (6); the second lacks the last bin.
    mean, sem = mean_and_sem(
        [[np.array([1.0, 4]), np.array([3.0, np.nan])], [np.array([6.0, np.nan])]]
    )
    assert mean.tolist() == [4, 4]
    assert sem[0] == pytest.approx(np.std([2, 6], ddof=1) / math.sqrt(2))
    assert np.isnan(sem[1])


def test_summary_by_hand() -> None:
    rising = np.stack([np.arange(40.0)] * 3)
    profile = summarise({"a": [rising], "b": [rising + 10]}, bins=4)
    assert profile.first[0].tolist() == [0.5 + 5] * 3  # tokens 0 and 1 of 40
    assert profile.overall[0].tolist() == [19.5 + 5] * 3
    assert profile.overall[1].tolist() == [5] * 3
    assert profile.curves[0, 0].tolist() == [9.5, 19.5, 29.5, 39.5]
    assert (profile.tokens, profile.answers) == (40, 2)


def test_command(answered: dict[str, Condition], tmp_path: Path) -> None:
    folders = [str(answered[name].root.parent) for name in ("baseline", "suffix")]
    command = ["analyze", "distributions", *folders, "--bins", "5", "--output", str(tmp_path)]
    assert main(command) == 0
    found = json.loads((tmp_path / "distributions.json").read_text())["arithmetic"]
    assert list(found) == ["baseline", "suffix"]
    assert found["suffix"]["answers"] == 8
    assert found["suffix"]["encoded_to_another_length"] == 0
    # Nearly all tokens of the model have equal logits, so its entropy is below ln 331 and near it.
    assert 0 < found["baseline"]["entropy_overall"]["mean"] < math.log(331)
    assert len((tmp_path / "distributions.csv").read_text().splitlines()) == 1 + 2 * 3 * 5
    assert "0 of 16 answers" in (tmp_path / "distributions.md").read_text()
    assert (tmp_path / "distributions.png").is_file()


def test_benchmarks_that_are_not_there(
    answered: dict[str, Condition], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(answered["suffix"].root)
    assert main(["analyze", "distributions", folder, "--benchmark", "gsm8k"]) == 1
    assert "--benchmark gsm8k: finished are arithmetic" in capsys.readouterr().err
