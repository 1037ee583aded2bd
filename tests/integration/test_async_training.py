"""Asynchronous training on the real stack: rollouts that outlive an update.

Few sequences at a time, long outputs and a cheap reward, so that some are under way whenever a step
has enough.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.harness import ONE_UPDATE, REPOSITORY, Run, Task, train

ASYNCHRONOUS = (
    ONE_UPDATE,
    "trainer.v1.trainer_mode=rsp_async",
    "rsp.seeded_sampling=true",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.rollout.max_num_seqs=2",
    "actor_rollout_ref.rollout.ignore_eos=true",
    "data.max_response_length=400",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=2048",
    "trainer.save_freq=2",
    "trainer.val_before_train=true",  # reward workers take seconds to start
    f"reward.custom_reward_function.path={REPOSITORY / 'tests/integration/parity_reward.py'}",
)
CASES = {
    "soft prompt": ("+correction=tis",),
    "soft prompt and law": (
        *("law=multiplex", "law.end=[]", "law.max_thoughts=300"),
        "actor_rollout_ref.rollout.top_k=-1",
    ),
}


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
        assert found["rsp/age_max"] <= 2
    assert any(data[step]["rsp/stale_tokens"] > 0 for step in steps)


@pytest.mark.parametrize("case", CASES)
def test_rollouts_go_on_under_the_next_policy(task: Task, tmp_path: Path, case: str) -> None:
    """Tokens of the actor's own policy agree with it, also behind others' in the same rollout."""
    changes = [*ASYNCHRONOUS, *CASES[case]]
    first = train(tmp_path / "run", task, *changes, steps=2)
    _assert_guarded(first, [1, 2])
    assert max(first.column("rsp/mixed_rollouts")) > 0
    if "law" in case:
        assert max(first.column("rsp/law/gap_mean")) < 1e-5
        assert first.column("rsp/law/thoughts_mean") == [300.0, 300.0]
        return
    # What was under way is in the checkpoint, and none of its draws comes again.
    assert (first.folder / "checkpoints" / "global_step_2" / "transfer_queue").is_dir()
    second = train(tmp_path / "run", task, *changes, steps=4)
    _assert_guarded(second, [3, 4])
    assert restored_prompts(second) > 0
    seeds = Counter(row["seed"] for step in (1, 2, 3, 4) for row in _records(second, step))
    assert len(seeds) == 4 * 8


def restored_prompts(run: Run) -> int:
    """As verl logs it."""
    logs = [path for path in (run.folder / "logs").rglob("*") if path.is_file()]
    texts = [run.output, *(path.read_text(errors="replace") for path in logs)]
    found = re.findall(r"Restored (\d+) training prompt groups", "".join(texts))
    return max(map(int, found), default=0)
