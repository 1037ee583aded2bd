"""The scaling table's arithmetic, by hand."""

from __future__ import annotations

import pytest
from scale_model import Cluster, UnitCosts, collisions_across_runs, collisions_within_a_run

from rsp_rl.draws.seeds import rollout_seed

# 2 GPUs as one engine, 3 rollouts each, L x d = 2 x 10 numbers, prompts of 5 tokens.
CLUSTER = Cluster(
    gpus=2,
    hidden_size=10,
    length=2,
    prompt_tokens=5,
    rollouts_per_gpu=3,
    step_seconds=30.0,
    generation_seconds=10.0,
    tensor_parallel=2,
    micro_batch=1,
)


def test_a_small_cluster_by_hand() -> None:
    assert CLUSTER.rollouts == CLUSTER.rollouts_per_engine == 6
    # Each of 6 is drawn by 2 ranks of the engine, for the old log-probs and for the update.
    assert CLUSTER.draws_per_second == 6 * 4 / 30
    assert CLUSTER.record_bytes_per_step == 6 * 80
    assert CLUSTER.drawn_bytes_per_step == 6 * 2 * 10 * 2
    assert CLUSTER.prompt_bytes(rows=False) == 2 * 6 * 5 * 80
    assert CLUSTER.prompt_bytes(rows=True) == 2 * 6 * 5 * 10 * 2
    assert CLUSTER.ahead_bytes == 3 * 2 * 10 * 4
    assert CLUSTER.device_bytes == 2 * 10 * 4


def test_shares_of_time_by_hand() -> None:
    costs = UnitCosts(draw=0.01, hashing=0.1, grading=5.0)  # a draw takes 0.2 s
    assert CLUSTER.shares(costs) == {
        "draw_in_rollout": pytest.approx(6 * 0.2 / 10),
        "draw_in_training": pytest.approx(2 * 3 * 0.2 / 20),
        "engine_core": pytest.approx(6 * 5 * 0.1 / 10),
    }
    assert CLUSTER.grading_cores(costs) == pytest.approx(6 * 5 / 10)


def test_the_papers_step() -> None:
    assert Cluster(gpus=32, hidden_size=3584).rollouts == 8192


def test_what_a_process_bears_does_not_grow_with_the_cluster() -> None:
    costs = UnitCosts(draw=1e-8, hashing=1e-6, grading=1e-3)
    small, large = (Cluster(gpus=gpus, hidden_size=3584) for gpus in (4, 2048))
    assert small.shares(costs) == large.shares(costs)
    assert small.prompt_bytes(rows=False) == large.prompt_bytes(rows=False)
    assert 512 * small.record_bytes_per_step == large.record_bytes_per_step


def test_seed_collisions() -> None:
    assert collisions_across_runs(1, 10**9) == 0
    # 2 runs of 2^32 rollouts: 2^64 pairs for 2^64 seeds; 3 runs are 3 pairs of runs.
    assert collisions_across_runs(2, 2**32) == 1
    assert collisions_across_runs(3, 2**31) == 3 / 4
    assert collisions_within_a_run() == 0
    places = [(step, index, n) for step in range(20) for index in range(50) for n in range(8)]
    assert len({rollout_seed(7, *place) for place in places}) == len(places)
