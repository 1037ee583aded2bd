"""Asynchronous training on the real stack: rollouts that outlive an update.

Of random weights, so that outputs end by chance and some are long, and of a model that is slow
enough for them to be under way when a step has its two groups.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from rsp_rl.tiny import make_tiny_model
from tests.integration.harness import REPOSITORY, Run, Task, train

ASYNCHRONOUS = (
    "trainer.v1.trainer_mode=rsp_async",
    "rsp.seeded_sampling=true",
    "data.train_batch_size=2",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.rollout.n=2",
    "data.max_response_length=768",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
    "trainer.save_freq=3",
    # Reward workers take seconds to start, and an answer of their own seconds to grade.
    "trainer.val_before_train=true",
    "data.val_max_samples=1",
    f"reward.custom_reward_function.path={REPOSITORY / 'tests/integration/parity_reward.py'}",
)
CASES = {
    "soft prompt": ("+correction=tis",),
    "soft prompt and law": (
        *("law=multiplex", "law.end=[]", "law.max_thoughts=700"),
        "actor_rollout_ref.rollout.top_k=-1",
    ),
}


@pytest.fixture(scope="module")
def slow_task(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Of a model with random weights, of eight times as many."""
    folder = tmp_path_factory.mktemp("slow") / "model"
    return Task(make_tiny_model(folder, steps=0, hidden_size=384, num_layers=4), task.data)


def _records(run: Run, step: int) -> list[dict]:
    rows = run.soft_prompts_file(step).read_text().splitlines()
    return [json.loads(row) for row in rows]


def _assert_guarded(run: Run, steps: list[int]) -> None:
    assert run.returncode == 0, run.output[-4000:]
    data = run.metrics()
    assert [step for step in sorted(data) if "rsp/stale_tokens" in data[step]] == steps
    for step in steps:
        found = data[step]
        assert found["rsp/rollouts_lost"] == 0
        if found["rsp/stale_tokens"] < 1:
            assert found["rsp/logprob_gap_mean"] < 1e-5
        else:
            assert found["rsp/logprob_gap_mean"] is None
        assert found["rsp/age_max"] <= step


@pytest.mark.parametrize("case", CASES)
def test_rollouts_go_on_under_the_next_policy(slow_task: Task, tmp_path: Path, case: str) -> None:
    """Tokens of the actor's own policy agree with it, also behind others' in the same rollout."""
    changes = [*ASYNCHRONOUS, *CASES[case]]
    first = train(tmp_path / "run", slow_task, *changes, steps=3)
    _assert_guarded(first, [1, 2, 3])
    assert max(first.column("rsp/mixed_rollouts")) > 0
    if "law" in case:
        assert max(first.column("rsp/law/gap_mean")) < 1e-5
        assert min(first.column("rsp/law/thoughts_mean")) > 1
        return
    # What was under way is in the checkpoint, and none of its draws comes again.
    assert (first.folder / "checkpoints" / "global_step_3" / "transfer_queue").is_dir()
    second = train(tmp_path / "run", slow_task, *changes, steps=4)
    _assert_guarded(second, [4])
    assert restored_prompts(second) > 0
    seeds = Counter(row["seed"] for step in (1, 2, 3, 4) for row in _records(second, step))
    assert len(seeds) == 4 * 4


def restored_prompts(run: Run) -> int:
    """As verl logs it."""
    logs = [path for path in (run.folder / "logs").rglob("*") if path.is_file()]
    texts = [run.output, *(path.read_text(errors="replace") for path in logs)]
    found = re.findall(r"Restored (\d+) training prompt groups", "".join(texts))
    return max(map(int, found), default=0)
