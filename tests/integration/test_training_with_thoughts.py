"""Training with a law on the real stack: verl, Ray, FSDP2, vLLM, the tiny model."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from rsp_rl.basics import exit_status
from rsp_rl.tiny import make_tiny_model
from tests.integration.harness import ONE_UPDATE, REPOSITORY, Run, Task, train

#: Thoughts until the box opens; the answer is ordinary tokens.
THINK = ("law.end=[]", 'law.end_text="\\boxed{"', "law.max_thoughts=16")

CASES = {
    "multiplex": (),
    "multiplex by draw": (
        "law.clip_per_draw=true",
        "actor_rollout_ref.actor.policy_loss.loss_mode=rsp_draws",
    ),
    # Five tokens a mixture: of a sure model's one the gap is 0 whatever the actor does.
    "gumbel": ("law.detach_inputs=false", "law.top_p=1.0"),
    "soft": ("objective=rloo", ONE_UPDATE, "rsp.length=0"),
}


@pytest.mark.parametrize("case", CASES)
def test_rollout_and_actor_have_the_same_thoughts(task: Task, tmp_path: Path, case: str) -> None:
    """Two steps, in most cases with a soft prompt in the question; the guard's bound is 1e-4."""
    law = case.split()[0]
    run = train(tmp_path / "run", task, f"law={law}", *THINK, *CASES[case])
    assert run.returncode == 0, run.output[-3000:]
    assert max(run.column("rsp/logprob_gap_max")) < 1e-3
    assert max(run.column("rsp/logprob_gap_mean")) < 1e-5
    assert min(run.column("rsp/law/thoughts_mean")) > 1
    assert run.column("rsp/rollouts_lost") == [0.0, 0.0]
    if law == "soft":
        assert max(run.column("rsp/law/relative_error_mean")) < 1e-4
        assert max(run.column("rsp/law/flips")) == 0
    else:
        assert max(run.column("rsp/law/gap_mean")) < 1e-5
        assert run.column("rsp/rollouts") == [16.0, 16.0]
    assert json.loads((run.folder / "law.json").read_text())["name"] == law
    first, second = (run.metrics()[step] for step in (1, 2))
    assert first["rsp/law/compared"] > 0
    assert first["rsp/law/compared_gap_mean"] < 0.1 * first["rsp/law/forgotten_gap_mean"]
    assert "rsp/law/compared" not in second
    for step in (1, 2):
        file = run.folder / "samples" / "train" / f"{step}.thoughts.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(rows) == len(run.responses(step))
        assert all(row["law"] == law and len(row["at"]) == row["thoughts"] for row in rows)


@pytest.mark.parametrize(
    ("law", "told"),
    [
        ("multiplex", "rollout and actor are different policies"),
        # Mixtures that are nearly tokens make less than the bound.
        ("gumbel", "the rollout is no nearer to the one than to the other"),
    ],
)
def test_the_guard_stops_an_actor_with_tokens_for_thoughts(
    task: Task, tmp_path: Path, law: str, told: str
) -> None:
    """On random weights, of which every input counts; at the bound that GPUs have."""
    untrained = Task(make_tiny_model(tmp_path / "model", steps=0), task.data)
    run = train(
        tmp_path / "run",
        untrained,
        *(f"law={law}", *THINK),
        "actor_rollout_ref.model.external_lib=tests.integration.thoughtless_actor",
        "rsp.guard.max_mean_gap=0.1",
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert run.returncode == exit_status.WOULD_COME_AGAIN
    (message,) = (line for line in run.output.splitlines() if line.startswith("error: "))
    assert told in message
    assert "Traceback" not in run.output


def test_a_run_goes_on_with_its_own_law_alone(task: Task, tmp_path: Path) -> None:
    """And after a SIGKILL steps that come again have the same thoughts."""
    settings = ("law=multiplex", *THINK, "trainer.save_freq=1", "rsp.seeded_sampling=true")
    folder = tmp_path / "run"
    metrics = folder / "metrics.jsonl"

    def in_step_2() -> bool:
        return metrics.is_file() and '"step":1' in metrics.read_text()

    killed = train(folder, task, *settings, ONE_UPDATE, steps=2, kill_when=in_step_2)
    assert killed.returncode == -signal.SIGKILL, killed.output[-3000:]
    other = train(folder, task, *settings, "law.k=2", steps=2)
    assert other.returncode != 0
    assert "law.k=2, and" in other.output
    resumed = train(folder, task, *settings, ONE_UPDATE, steps=2)
    assert resumed.returncode == 0, resumed.output[-3000:]
    whole = train(tmp_path / "whole", task, *settings, ONE_UPDATE, steps=2)
    assert whole.returncode == 0, whole.output[-3000:]
    assert sorted(resumed.metrics()) == [2]
    assert resumed.responses(2) == whole.responses(2)
    assert thoughts(resumed, 2) == thoughts(whole, 2)


def thoughts(run: Run, step: int) -> list[dict]:
    """One step's, without verl's random uid; in the order of their seeds."""
    file = run.folder / "samples" / "train" / f"{step}.thoughts.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    bare = [{name: value for name, value in row.items() if name != "uid"} for row in rows]
    return sorted(bare, key=lambda row: row["seed"])
