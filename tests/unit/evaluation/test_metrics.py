"""Metrics: each number worked by hand, then the laws that hold for all samples."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import RunFolderError
from rsp_rl.evaluation.metrics import (
    benchmark_metrics,
    bootstrap_means,
    paired_difference,
    pass_at_k,
)
from tests.properties import examples
from tests.tolerances import rounding
from tests.unit.evaluation.made_runs import sample


def samples_of(table: dict[str, str]):
    """Samples from right (`+`) and wrong (`-`) marks by problem."""
    return [
        sample(problem, number, mark == "+")
        for problem, marks in table.items()
        for number, mark in enumerate(marks)
    ]


#: Of means of shares in float64.
SUMS = rounding(64, dtype=torch.float64)


def test_counts_by_hand():
    metrics = benchmark_metrics(samples_of({"a": "++--", "b": "+---", "c": "----"}))
    assert (metrics["problems"], metrics["samples_per_problem"]) == (3, 4)
    assert metrics["accuracy"] == pytest.approx(3 / 12)
    # Per problem 1/2, 1/4, 0: population variance ((1/4)^2 + 0 + (1/4)^2) / 3 = 1/24.
    assert metrics["accuracy_standard_error"] == pytest.approx(math.sqrt(1 / 24 / 3))
    # c = 2: 1 - C(2, k) / C(4, k) = 1/2, 5/6, 1, 1; c = 1: k / 4; c = 0: 0.
    by_hand = {"1": (1 / 2 + 1 / 4) / 3, "2": (5 / 6 + 2 / 4) / 3, "3": 1.75 / 3, "4": 2 / 3}
    assert metrics["pass_at_k"] == pytest.approx(by_hand)


def test_lengths_and_failures_by_hand():
    metrics = benchmark_metrics(
        [
            *(sample(str(i), tokens=10 * i) for i in range(20)),
            sample("x", tokens=1000, finish_reason="length", extracted="", correct=False),
            sample("y", tokens=0, correct=False, timed_out=True, unparsable=True),
            sample("z", tokens=0, correct=False, crashed=True, finish_reason="length"),
            sample("w", tokens=0, correct=False, extracted=""),
        ]
    )
    assert metrics["tokens_mean"] == pytest.approx((1900 + 1000) / 24)
    # Sorted: 0, 0, 0, 0, 10, .., 190, 1000; position 0.95 * 23 = 21.85 between 180 and 190.
    assert metrics["tokens_p95"] == pytest.approx(188.5)
    assert metrics["truncation_rate"] == pytest.approx(2 / 24)
    assert metrics["extraction_failure_rate"] == pytest.approx(2 / 24)
    assert (metrics["timeouts"], metrics["crashes"], metrics["unparsable"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        (["4", "4", "5"], True),
        (["5", "4", "5"], False),
        (["4", "5"], True),  # a tie: seen first
        (["5", "4"], False),
        ([r"\frac12", "4", r"\dfrac{1}{2}", "$ 1/ 2 $"], False),  # one answer in two notations
        (["", "", "4"], True),  # no answer, no vote
        (["", ""], False),
    ],
)
def test_majority_by_hand(answers, right):
    samples = [sample("a", i, text == "4", extracted=text) for i, text in enumerate(answers)]
    assert benchmark_metrics(samples)["majority_accuracy"] == right


def test_interval_is_that_of_the_binomial():
    # 40 right of 100: resampled means are Binomial(100, 0.4) / 100, whose central 95% is
    # [0.31, 0.50]; percentiles of 10,000 draws may land on a neighbouring lattice point.
    metrics = benchmark_metrics([sample(str(i), correct=i < 40) for i in range(100)])
    assert metrics["accuracy_low"] == pytest.approx(0.31, abs=0.0101)
    assert metrics["accuracy_high"] == pytest.approx(0.50, abs=0.0101)


def test_bootstrap_agrees_with_drawing_problems():
    rng = np.random.default_rng(1)
    values_RP = rng.integers(0, 4, size=(2, 50)) / 3
    drawn = rng.integers(0, 50, size=(10_000, 50))
    expected = np.cov(values_RP[:, drawn].mean(axis=2))
    resampled = np.cov(bootstrap_means(values_RP, np.random.default_rng(2)).T)
    # The covariance between rows is what makes it paired; its standard error is about 2%.
    np.testing.assert_allclose(resampled, expected, atol=0.08 * expected.max())


def test_bootstrap_is_seeded():
    # Problems with samples in sevenths: ends of intervals fall on a fine lattice.
    samples = samples_of({str(i): "+" * (i % 8) + "-" * (7 - i % 8) for i in range(50)})
    assert benchmark_metrics(samples, seed=3) == benchmark_metrics(samples, seed=3)
    assert benchmark_metrics(samples, seed=3) != benchmark_metrics(samples, seed=4)


def test_paired_difference_by_hand():
    first = samples_of({"a": "+-", "b": "--", "c": "++", "only first": "++"})
    second = samples_of({"a": "++++", "b": "+---", "c": "--++", "only second": "----"})
    paired = paired_difference(first, second)
    # a: 1 - 1/2; b: 1/4 - 0; c: 1/2 - 1.
    assert (paired["problems"], paired["difference"]) == (3, pytest.approx(1 / 12))
    assert paired["low"] == pytest.approx(-1 / 2)  # all three draws are c: 1 in 27
    assert paired["high"] == pytest.approx(1 / 2)


def test_paired_interval_is_narrower_than_the_unpaired_one():
    first = [sample(str(i), correct=i < 200) for i in range(400)]
    second = [sample(str(i), correct=i < 212) for i in range(400)]
    paired = paired_difference(first, second)
    assert paired["difference"] == pytest.approx(0.03)
    assert 0.01 < paired["low"] < 0.03 < paired["high"] < 0.05
    assert benchmark_metrics(second)["accuracy_low"] < 0.5  # alone, the gain would not show


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (samples_of({"a": "++", "b": "+"}), "'a' has 2 samples but problem 'b' has 1"),
        ([sample("a"), sample("a")], "sample 0 of problem 'a' is there twice"),
        ([], "no samples"),
    ],
)
def test_samples_that_cannot_be_counted(samples, message):
    with pytest.raises(RunFolderError, match=message):
        benchmark_metrics(samples)


def test_nothing_in_common():
    with pytest.raises(RunFolderError, match="share no problem"):
        paired_difference([sample("a")], [sample("b")])


@st.composite
def tables(draw):
    n = draw(st.integers(1, 6))
    problems = draw(st.integers(1, 8))
    marks = st.text("+-", min_size=n, max_size=n)
    return {str(i): draw(marks) for i in range(problems)}


@examples(60)
@given(tables(), st.randoms())
def test_laws(table, random):
    samples = samples_of(table)
    metrics = benchmark_metrics(samples)
    passes = list(metrics["pass_at_k"].values())
    n = metrics["samples_per_problem"]
    assert len(passes) == n
    assert passes[0] == pytest.approx(metrics["accuracy"])
    assert passes[-1] == pytest.approx(np.mean(["+" in marks for marks in table.values()]))
    assert all(a <= b + SUMS for a, b in itertools.pairwise(passes))
    assert metrics["accuracy_low"] <= metrics["accuracy"] + SUMS
    assert metrics["accuracy_high"] >= metrics["accuracy"] - SUMS
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert benchmark_metrics(shuffled) == metrics


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_is_the_chance_of_a_right_sample_among_k(shape):
    n, c = shape
    marks = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        draws = [any(draw) for draw in itertools.combinations(marks, k)]
        assert pass_at_k(n, np.array([c]), k) == pytest.approx(np.mean(draws))


def test_pass_at_k_is_stable_for_many_samples():
    n, k = 10_000, 5_000
    assert pass_at_k(n, np.array([1]), k) == pytest.approx(0.5)
    assert pass_at_k(n, np.array([2]), k) == pytest.approx(1 - (k / n) * ((k - 1) / (n - 1)))
