"""The Gaussian draw: golden bytes, the same in any process, normal, independent between seeds."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rsp_rl.draws.laws import draw_soft_prompt
from rsp_rl.draws.seeds import prompt_index_of, rollout_seed
from tests.properties import examples
from tests.tolerances import rounding

UINT64 = st.integers(0, 2**64 - 1)
DIGEST = {
    (42, 3, 5, 0.0, 1.0): "35771439a65cc8135aa5a9e989678466",
    (2**64 - 1, 2, 4, 0.01, 0.02): "897bb6551fae179bbe610438be7eb91a",
    (0, 2, 4, -1.5, 0.5): "29831b0a18087442e19603fe8cc0d0d3",
}


def _digest(rows: torch.Tensor) -> str:
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()[:32]


@pytest.mark.parametrize(("arguments", "digest"), DIGEST.items())
def test_draw_golden_bytes(arguments: tuple, digest: str) -> None:
    assert _digest(draw_soft_prompt(*arguments)) == digest


def test_draw_golden_numbers() -> None:
    first_row = draw_soft_prompt(42, 3, 5, 0.0, 1.0)[0, :4].tolist()
    assert first_row == [
        0.3375714421272278,
        -0.7821534872055054,
        -0.3160251975059509,
        -2.101215362548828,
    ]
    rows = draw_soft_prompt(2**64 - 1, 2, 4, 0.01, 0.02)
    assert rows[0, 0].item() == -0.04537343233823776


_OTHER_PROCESS = """
import hashlib, sys, numpy, torch
torch.set_num_threads(int(sys.argv[1])); torch.manual_seed(int(sys.argv[2]))
numpy.random.seed(int(sys.argv[2])); torch.rand(3); numpy.random.rand(5)
torch.set_default_dtype(torch.float64)
from rsp_rl.draws.laws import draw_soft_prompt
from rsp_rl.draws.seeds import prompt_index_of, rollout_seed
seeds = [rollout_seed(42, step, prompt_index_of("math-17"), n) for step in (1, 2) for n in (0, 7)]
rows = torch.cat([draw_soft_prompt(seed, 20, 64, 0.01, 0.5) for seed in seeds])
assert rows.dtype == torch.float32
print(seeds, hashlib.sha256(rows.numpy().tobytes()).hexdigest())
"""


def test_draw_and_seeds_are_the_same_in_any_process() -> None:
    other_hash_seed = "4711" if os.environ.get("PYTHONHASHSEED") != "4711" else "4712"
    other_threads = "2" if torch.get_num_threads() != 2 else "1"
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_PROCESS, other_threads, "99"],
        env={**os.environ, "PYTHONHASHSEED": other_hash_seed, "OMP_NUM_THREADS": other_threads},
        capture_output=True,
        text=True,
        check=True,
    )
    seeds = [
        rollout_seed(42, step, prompt_index_of("math-17"), n) for step in (1, 2) for n in (0, 7)
    ]
    rows = torch.cat([draw_soft_prompt(seed, 20, 64, 0.01, 0.5) for seed in seeds])
    assert done.stdout == f"{seeds} {hashlib.sha256(rows.numpy().tobytes()).hexdigest()}\n"


def test_draw_neither_reads_nor_moves_global_random_state() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()
    first = draw_soft_prompt(1, 4, 8, 0.0, 1.0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])
    try:
        torch.rand(1)
        np.random.rand(1)
        assert torch.equal(draw_soft_prompt(1, 4, 8, 0.0, 1.0), first)
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)


@given(seed=UINT64, short=st.integers(0, 12), more=st.integers(0, 12), width=st.integers(1, 40))
@examples(60)
def test_rows_of_a_shorter_soft_prompt_begin_a_longer_one(
    seed: int, short: int, more: int, width: int
) -> None:
    longer = draw_soft_prompt(seed, short + more, width, 0.1, 2.0)
    assert torch.equal(draw_soft_prompt(seed, short, width, 0.1, 2.0), longer[:short])


def test_ten_rows_are_the_first_of_twenty_at_a_real_width() -> None:
    twenty = draw_soft_prompt(3, 20, 3584, 0.0, 0.0153)
    assert twenty.shape == (20, 3584)
    assert torch.equal(draw_soft_prompt(3, 10, 3584, 0.0, 0.0153), twenty[:10])


def test_draw_is_normal_with_the_given_mean_and_standard_deviation() -> None:
    mean, std = 0.03, 0.4
    drawn = torch.cat([draw_soft_prompt(seed, 20, 512, mean, std) for seed in range(40)])
    values = drawn.double().flatten().numpy()
    count = values.size
    assert abs(values.mean() - mean) < 4 * std / math.sqrt(count)
    assert abs(values.var() / std**2 - 1) < 4 * math.sqrt(2 / count)
    assert abs(stats.skew(values)) < 4 * math.sqrt(6 / count)
    assert abs(stats.kurtosis(values)) < 4 * math.sqrt(24 / count)
    assert stats.kstest(values, "norm", args=(mean, std)).pvalue > 0.01
    # Each single soft prompt too, not the mixture alone: p-values are then uniform.
    each = [stats.kstest(h.numpy(), "norm", args=(mean, std)).pvalue for h in drawn[::8]]
    assert stats.kstest(each, "uniform").pvalue > 0.01


def test_rows_have_isotropic_covariance() -> None:
    width, rows = 24, 40_000
    drawn = draw_soft_prompt(11, rows, width, 0.5, 3.0).double().numpy()
    covariance = np.cov(drawn, rowvar=False) / 9.0
    # Entries of a sample covariance: standard error 1/sqrt(n) off the diagonal, sqrt(2/n) on it.
    off_diagonal = covariance[~np.eye(width, dtype=bool)]
    assert np.abs(off_diagonal).max() < 4.5 / math.sqrt(rows)
    assert np.abs(np.diag(covariance) - 1).max() < 4.5 * math.sqrt(2 / rows)
    eigenvalues = np.linalg.eigvalsh(covariance)
    edge = math.sqrt(width / rows)  # Marchenko-Pastur
    assert (1 - edge) ** 2 - 0.02 < eigenvalues[0]
    assert eigenvalues[-1] < (1 + edge) ** 2 + 0.02
    # Neighbouring rows are independent.
    lagged = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    assert abs(lagged) < 4 / math.sqrt(drawn.size)


@pytest.mark.parametrize("kind", ["consecutive", "rollouts of a group", "one bit apart"])
def test_draws_of_different_seeds_are_uncorrelated(kind: str) -> None:
    seeds = {
        "consecutive": list(range(100, 164)),
        "rollouts of a group": [rollout_seed(42, 1, 0, n) for n in range(64)],
        "one bit apart": [1 << bit for bit in range(64)],
    }[kind]
    drawn = np.stack(
        [draw_soft_prompt(s, 20, 100, 0.0, 1.0).double().numpy().ravel() for s in seeds]
    )
    correlation = np.corrcoef(drawn)[np.triu_indices(len(seeds), k=1)]
    expected = 1 / math.sqrt(drawn.shape[1])
    assert np.abs(correlation).max() < 5 * expected
    assert abs(correlation.std() / expected - 1) < 0.1


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0, 2.0, 10.0])
def test_scale_multiplies_the_deviation_and_leaves_the_mean(scale: float) -> None:
    base = draw_soft_prompt(5, 4, 64, 0.0, 0.02).double()
    scaled = draw_soft_prompt(5, 4, 64, 0.3, 0.02 * scale).double()
    assert torch.allclose(scaled - 0.3, base * scale, rtol=0, atol=rounding(2, size=2))


@pytest.mark.parametrize(
    "arguments",
    [
        (1, -1, 4, 0.0, 1.0),
        (1, 4, 0, 0.0, 1.0),
        (1, 4, 4, 0.0, -1.0),
        (1, 4, 4, 0.0, math.nan),
        (-1, 4, 4, 0.0, 1.0),
    ],
)
def test_impossible_draws_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match=r"cannot draw|key must"):
        draw_soft_prompt(*arguments)
