"""First-token metrics by hand and against scipy."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import spearmanr

from rsp_rl.analysis.conditions import Condition, open_conditions, position_name
from rsp_rl.analysis.first_token import TopLogits, compare, estimates, jensen_shannon, spearman
from rsp_rl.analysis.teacher_forcing import ForcedModel
from rsp_rl.cli import main
from tests.properties import examples
from tests.tolerances import rounding


def top(*logits: tuple[int, float]) -> TopLogits:
    return TopLogits(np.array([i for i, _ in logits]), np.array([x for _, x in logits]))


def test_top_logits() -> None:
    found = TopLogits.of(torch.arange(300, dtype=torch.bfloat16) / 4)
    assert len(found.ids) == 100
    assert (found.logits[0], found.logits[0] >= found.logits[-1]) == (75.0, True)
    few = TopLogits.of(torch.tensor([1.0, 3.0, 2.0]))
    assert (few.ids.tolist(), few.logits.tolist()) == ([1, 2, 0], [3, 2, 1])
    assert few.at(2).logits.tolist() == [1.5, 1, 0.5]


#: Of sums of thirty terms of at most 1 in float64, and of scipy's.
SUMS = rounding(64, dtype=torch.float64)


def test_comparison_by_hand() -> None:
    # Twelve equally likely tokens against twelve of which half are new.
    a = TopLogits(np.arange(12), np.arange(12, 0, -1) / 1e6)
    b = TopLogits(np.arange(6, 18), np.arange(12, 0, -1) / 1e6)
    rho, outside, divergence = compare(a, b)
    # Equally likely but for their order: logits of up to 1.2e-5.
    # Of b's mass 4 / 12 are on a's ten likeliest (6..9); each p, q is 1/12 or 0.
    assert outside == pytest.approx(8 / 12, abs=1e-5)
    assert divergence == pytest.approx(0.5, abs=1e-5)  # half of either is where the other is 0
    ranks_a = [*range(18, 6, -1), *[3.5] * 6]
    ranks_b = [*[3.5] * 6, *range(18, 6, -1)]
    assert rho == pytest.approx(np.corrcoef(ranks_a, ranks_b)[0, 1])


def test_equal_and_disjoint() -> None:
    a, b = top((0, 2.0), (1, 1.0)), top((2, 5.0), (3, 1.0))
    assert compare(a, a).tolist() == pytest.approx([1, 0, 0])
    rho, outside, divergence = compare(a, b)
    assert (outside, divergence) == pytest.approx((1, 1))
    assert rho < 0


def test_temperature_by_hand() -> None:
    base = TopLogits(np.arange(11), np.array([math.log(90), *[math.log(1)] * 10]))
    rho, outside, divergence = compare(base, base.at(2.0))
    root = math.sqrt(90)
    assert rho == pytest.approx(1)
    assert outside == pytest.approx(1 / (root + 10))
    p, q = [0.9, *[0.01] * 10], [root / (root + 10), *[1 / (root + 10)] * 10]
    assert divergence == pytest.approx(jensenshannon(p, q, base=2) ** 2)


@examples(50)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_spearman_and_jensen_shannon_are_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    if len(set(a)) > 1 and len(set(b)) > 1:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=SUMS)
    else:
        assert math.isnan(spearman(a, b))
    p, q = (np.exp(x) / np.exp(x).sum() for x in (a, b))
    # Of equal distributions scipy may take the root of a rounding error below 0, which is NaN.
    theirs = np.nan_to_num(jensenshannon(p, q, base=2)) ** 2
    assert jensen_shannon(p, q) == pytest.approx(theirs, abs=SUMS)
    assert -SUMS <= jensen_shannon(p, q) <= 1 + SUMS


def test_estimates_are_over_problems() -> None:
    rows = {"x": np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])}
    found = estimates(rows)["x"]
    assert (found["spearman"].low, found["spearman"].value, found["spearman"].high) == (0, 0.5, 1)
    assert found["mass_outside_top10"].low == found["mass_outside_top10"].high == 0.5


def test_command(answered: dict[str, Condition], tmp_path: Path) -> None:
    folders = [str(answered[name].root.parent) for name in ("prefix", "suffix")]
    assert main(["analyze", "first-token", *folders, "--output", str(tmp_path)]) == 0
    rows = list(csv.DictReader((tmp_path / "first_token.csv").open()))
    values = {(row["row"], row["metric"]): float(row["value"]) for row in rows}
    assert values["τ = 2", "spearman"] == pytest.approx(1)
    assert 0 < values["τ = 2", "js_divergence"] < values["τ = 3", "js_divergence"] < 1
    assert len({values[name, "js_divergence"] for name in ("prefix", "suffix")}) == 2
    assert (tmp_path / "first_token.png").is_file()


def test_baseline_is_the_plain_prompts(answered: dict[str, Condition]) -> None:
    """What is compared with is the evaluation without soft prompts, made from the one with."""
    soft, plain = (ForcedModel(answered[name]) for name in ("infix", "baseline"))
    asked = list(soft.questions("arithmetic", soft_prompts=False))
    assert [q.request for q in asked] == [t.request for t in plain.trajectories("arithmetic")]


def test_a_folder_without_soft_prompts(
    answered: dict[str, Condition], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", "first-token", str(answered["baseline"].root)]) == 1
    assert "has no soft prompts" in capsys.readouterr().err
    (condition,) = open_conditions([str(answered["baseline"].root)], position_name)
    assert condition.name == "baseline"
