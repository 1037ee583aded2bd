"""The paper's numbers agree with one another."""

from __future__ import annotations

import pytest

from rsp_rl.data.benchmarks import BENCHMARKS
from rsp_rl.reproduce import paper


def test_every_number_is_there_once() -> None:
    keys = [(number.quantity, number.model) for number in paper.NUMBERS]
    assert len(set(keys)) == len(keys)
    assert len(keys) == 21 + 8 + 9 + 6 + 2 + 10 + 22


def test_benchmarks_are_ours() -> None:
    named = {number.quantity.benchmark for number in paper.NUMBERS} - {None}
    assert {part for name in named for part in paper.parts_of(name)} <= set(BENCHMARKS)


@pytest.mark.parametrize(("run", "peak"), [(paper.DAPO, 80), (paper.DAPO_RSP, 90)])
def test_peaks_of_table_5_are_those_of_table_13(run: str, peak: int) -> None:
    """The mean of Table 5's five benchmarks is the largest value of the run's curve."""
    numbers = [number for number in paper.NUMBERS if number.quantity.condition == run]
    curve = {
        number.quantity.metric: number.value
        for number in numbers
        if number.quantity.metric.startswith("headline")
    }
    benchmarks = [n.value for n in numbers if n.quantity.metric == "accuracy at the peak"]
    assert max(curve, key=curve.__getitem__) == f"headline at step {peak}"
    # Numbers of one decimal that add up: exact but for float64.
    assert sum(benchmarks) / 5 == pytest.approx(max(curve.values()), abs=1e-9)


def test_lengths_are_of_those_the_paper_tries() -> None:
    assert {length for row in paper.LENGTHS.values() for length in row} <= {10, 15, 20}
