"""Training on the real stack: verl's trainer, Ray, FSDP2, vLLM and the RSP plug-in.

Each test is one or two short runs of `python -m rsp_rl.training.train` on a tiny model.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from rsp_rl.basics import exit_status
from rsp_rl.runs.folder import RunFolder
from rsp_rl.runs.rollouts import read_step, step_files
from rsp_rl.tiny import make_tiny_model
from tests.integration.harness import ONE_UPDATE, REPOSITORY, Run, Task, train
from tests.integration.parity_reward import compute_score

#: fp32 on both sides: what rollout and actor may differ by, in nats.
ROUNDING = 1e-5

FIXED_MICRO_BATCHES = (
    "actor_rollout_ref.actor.use_dynamic_bsz=false",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8",
)
PADDED = ("actor_rollout_ref.model.use_remove_padding=false",)
TWO_RANKS = (
    "trainer.n_gpus_per_node=2",
    "ray_kwargs.ray_init.num_gpus=2",
    "ray_kwargs.ray_init.num_cpus=8",
)
GRADIENT_CHECKPOINTING = ("actor_rollout_ref.model.enable_gradient_checkpointing=true",)
#: Layouts are about gradients, which the tiny model's rare right answers do not guarantee.
PARITY_REWARD = (
    f"reward.custom_reward_function.path={REPOSITORY / 'tests/integration/parity_reward.py'}",
)
LORA = (
    "actor_rollout_ref.model.lora_rank=8",
    "actor_rollout_ref.model.lora_alpha=16",
    "actor_rollout_ref.rollout.load_format=safetensors",
)


def assert_trained(run: Run, steps: int) -> None:
    assert run.returncode == 0, run.output[-4000:]
    assert max(run.metrics()) == steps
    # A group whose rollouts are all wrong has no advantage; the run must have had some signal.
    assert any(norm > 0 for norm in run.column("actor/grad_norm"))


def test_rollout_and_actor_agree_with_rsp(uninterrupted: Run) -> None:
    assert_trained(uninterrupted, steps=4)
    assert max(uninterrupted.column("rsp/logprob_gap_mean")) <= ROUNDING
    assert uninterrupted.column("rsp/rollouts") == [16] * 4


def test_the_first_step_says_what_forgetting_would_make(uninterrupted: Run) -> None:
    """Of one micro-batch; soft prompts move nearly every log-prob."""
    first, *later = [data for data in uninterrupted.metrics().values() if "rsp/rollouts" in data]
    assert first["rsp/compared"] > 20
    assert first["rsp/moved"] > 0.9
    assert first["rsp/compared_gap_mean"] < 0.1 * first["rsp/forgotten_gap_mean"]
    assert not any("rsp/compared" in data for data in later)


def test_reward_counters_are_logged(uninterrupted: Run) -> None:
    """Of 16 rollouts a step: how many were right, and how many the grader gave up on."""
    assert all(0 <= count <= 16 for count in uninterrupted.column("reward/acc"))
    for counter in ("timeouts", "crashes", "unparsable"):
        assert all(0 <= count <= 16 for count in uninterrupted.column(f"reward/{counter}"))


def test_validation_rollouts_have_no_soft_prompt(uninterrupted: Run) -> None:
    assert any(name.startswith("val-core/arithmetic/") for name in uninterrupted.metrics()[0])
    assert not list(uninterrupted.folder.glob("samples/validation/*.soft_prompts.jsonl"))


def test_rollouts_are_told_with_what_a_step_logs(uninterrupted: Run) -> None:
    """Gap and verdict of each, and its soft prompt after the question."""
    run = RunFolder(uninterrupted.folder)
    files = step_files(run.train_samples)
    assert list(files) == [1, 2, 3, 4]
    for number, file in files.items():
        step, logged = read_step(number, file), uninterrupted.metrics()[number]
        assert (len(step.rollouts), step.padding) == (16, 0)
        assert max(one.gap_max for one in step.rollouts) == logged["rsp/logprob_gap_max"]
        assert sum(one.right(None) for one in step.rollouts) == logged["reward/acc"]
        tokens = [one.tokens for one in step.rollouts]
        assert sum(tokens) / 16 == pytest.approx(logged["response_length/mean"])
        for one in step.rollouts:
            prompt = step.texts([one])[one.uid]["input"]
            assert prompt[: one.before].rpartition("\n")[2].startswith("Compute ")
            assert prompt[one.before :].strip() == "assistant"


def test_draws_differ_between_rollouts_and_steps(uninterrupted: Run) -> None:
    seeds = [row["seed"] for step in (1, 2, 3, 4) for row in uninterrupted.soft_prompts(step)]
    assert len(seeds) == len(set(seeds)) == 64


def test_settings_are_in_config_and_checkpoint(uninterrupted: Run) -> None:
    settings = RunFolder(uninterrupted.folder).read_settings()
    checkpoint = RunFolder(uninterrupted.folder / "checkpoints" / "global_step_4").read_settings()
    assert settings["std"] > 0
    for name in ("mean", "std", "seed", "length", "position"):
        assert checkpoint[name] == settings[name]
    assert f"'std': {settings['std']}" in uninterrupted.output  # verl's print of the config


def test_merged_checkpoint_loads(uninterrupted: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rsp_rl.cli", "report", str(uninterrupted.folder)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "loads in transformers" in done.stdout
    run = RunFolder(uninterrupted.folder)
    assert run.plot.stat().st_size > 10_000
    assert '"steps": 4' in run.summary.read_text()
    assert "4 steps · 16 groups · 64 rollouts" in run.rollouts_page.read_text()


def test_kill_and_resume(uninterrupted: Run, task: Task, tmp_path: Path) -> None:
    """kill -9 in the middle of step 3; the resumed run goes on as the uninterrupted one did."""
    overrides = (ONE_UPDATE, "trainer.save_freq=1", "rsp.seeded_sampling=true")
    folder = tmp_path / "run"

    def in_step_3() -> bool:
        metrics = folder / "metrics.jsonl"
        return metrics.is_file() and '"step":2' in metrics.read_text()

    killed = train(folder, task, *overrides, steps=4, kill_when=in_step_3)
    assert killed.returncode == -9
    assert (folder / "checkpoints/latest_checkpointed_iteration.txt").read_text() == "2"

    resumed = train(folder, task, *overrides, steps=4)
    assert_trained(resumed, steps=4)
    assert sorted(resumed.metrics()) == [3, 4]
    for step in (3, 4):
        assert resumed.soft_prompts(step) == uninterrupted.soft_prompts(step)
        ours, expected = (run.responses(step) for run in (resumed, uninterrupted))
        assert [prompt for prompt, _ in ours] == [prompt for prompt, _ in expected]
        # To rounding, which may turn a token's draw once in some hundred runs; that a step is
        # repeated bit for bit is the engine's test (tests/unit/configs/test_objective.py).
        assert (Counter(ours) & Counter(expected)).total() >= 15
    states = [
        torch.load(
            run.folder / "checkpoints/global_step_4/actor/optim_world_size_1_rank_0.pt",
            weights_only=False,
        )["state"]
        for run in (resumed, uninterrupted)
    ]
    assert {float(state["step"]) for state in states[0].values()} == {4.0}
    moments = [
        torch.cat([state["exp_avg"].to_local().flatten() for state in run.values()])
        for run in states
    ]
    assert torch.nn.functional.cosine_similarity(*moments, dim=0) > 0.9
    assert sorted(RunFolder(folder).merge_metrics()) == [1, 2, 3, 4]


def test_guard_stops_when_only_the_rollout_has_rsp(task: Task, tmp_path: Path) -> None:
    """The actor forgets H: the guard stops at the paper's bound.

    On random weights: a warm-up with noise before the end-of-turn teaches so small a model to
    ignore most of H (gap 0.02), which a language model never learnt.
    """
    untrained = Task(make_tiny_model(tmp_path / "model", steps=0), task.data)
    run = train(
        tmp_path / "run",
        untrained,
        "actor_rollout_ref.model.external_lib=tests.integration.forgetful_actor",
        "rsp.guard.max_mean_gap=0.1",
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert run.returncode == exit_status.WOULD_COME_AGAIN
    (message,) = (line for line in run.output.splitlines() if line.startswith("error: "))
    gap = float(re.search(r"is ([0-9.e+-]+) nats", message)[1])
    assert gap > 0.1
    assert "the actor does not inject the soft prompt" in message
    assert "Traceback" not in run.output


def test_noise_on_the_question(task: Task, tmp_path: Path) -> None:
    """In place of a soft prompt: the actor adds what the rollout had, and forgetting it shows."""
    run = train(
        tmp_path / "run",
        task,
        *PARITY_REWARD,
        *("rsp.law=question_noise", "rsp.length=0", "rsp.scale=15"),
    )
    assert_trained(run, steps=2)
    assert max(run.column("rsp/logprob_gap_mean")) < ROUNDING
    assert run.column("rsp/rollouts") == [16.0, 16.0]
    first = run.metrics()[1]
    assert first["rsp/compared_gap_mean"] < 0.01 * first["rsp/forgotten_gap_mean"]
    # No token was put in, and every rollout has a draw of its own.
    records = [record for step in (1, 2) for record in run.soft_prompts(step)]
    assert len({record["seed"] for record in records}) == 32
    assert all(record["added_to"] for record in records)


def test_plain_dapo_with_its_optional_parts(task: Task, tmp_path: Path) -> None:
    """No RSP; groups without signal are replaced (dynamic sampling), long responses punished."""
    run = train(
        tmp_path / "run",
        task,
        *PARITY_REWARD,
        "rsp.length=0",
        "algorithm.filter_groups.enable=true",
        "reward.reward_kwargs.overlong_buffer_cfg.enable=true",
        "reward.reward_kwargs.overlong_buffer_cfg.len=16",
    )
    assert_trained(run, steps=2)
    assert max(run.column("rsp/logprob_gap_mean")) <= ROUNDING
    assert run.column("rsp/rollouts") == [0, 0]
    # Every kept group has rollouts of either kind.
    scores: dict[str, set[float]] = {}
    for prompt, response in run.responses(1):
        scores.setdefault(prompt, set()).add(compute_score("", response, "")["score"])
    assert all(len(kinds) == 2 for kinds in scores.values())


def test_two_ranks_with_lora(task: Task, tmp_path: Path) -> None:
    run = train(tmp_path / "run", task, *PARITY_REWARD, *TWO_RANKS, *LORA)
    assert_trained(run, steps=2)
    assert max(run.column("rsp/logprob_gap_mean")) <= ROUNDING
    assert run.column("rsp/rollouts") == [16, 16]


def test_padded_layout_with_tied_embeddings_and_a_shared_infix(task: Task, tmp_path: Path) -> None:
    """Fixed micro-batches and gradient checkpointing too: all that the other runs have not."""
    tied = Task(make_tiny_model(tmp_path / "m", steps=0, tie_word_embeddings=True), task.data)
    run = train(
        tmp_path / "run",
        tied,
        *PARITY_REWARD,
        *PADDED,
        *FIXED_MICRO_BATCHES,
        *GRADIENT_CHECKPOINTING,
        "rsp.position=infix",
        "rsp.mode=shared",
    )
    assert_trained(run, steps=2)
    assert max(run.column("rsp/logprob_gap_mean")) <= ROUNDING
    assert run.column("rsp/rollouts") == [16, 16]
    # Two updates a step: the second is off the old policy, so the ratio is no longer exactly 1.
    assert any(kl != 0 for kl in run.column("actor/ppo_kl"))
    seeds_by_prompt: dict[int, set[int]] = {}
    for row in run.soft_prompts(1):
        seeds_by_prompt.setdefault(row["prompt_index"], set()).add(row["seed"])
    assert [len(seeds) for seeds in seeds_by_prompt.values()] == [1] * 4


TOOL_AGENT = (
    "actor_rollout_ref.rollout.agent.default_agent_loop=tool_agent",
    "actor_rollout_ref.rollout.multi_turn.format=first_answer_calls",
    "actor_rollout_ref.rollout.multi_turn.function_tool_path="
    f"{REPOSITORY / 'tests/integration/tool_use.py'}",
    "data.max_response_length=64",
)
DIALS = (
    "rsp.law=vocab",
    "rsp.mixing=half",
    *(f"rsp.length_schedule.{name}" for name in ("shape=cosine", "end=2", "steps=3")),
)


def test_dials_and_truncation_correction_with_a_tool(task: Task, tmp_path: Path) -> None:
    """All that goes beyond the paper at once; rollout and actor are still one policy."""
    truncated = ("+correction=tis", "actor_rollout_ref.rollout.top_k=3")
    run = train(tmp_path / "run", task, *PARITY_REWARD, *TOOL_AGENT, *DIALS, *truncated, steps=3)
    assert_trained(run, steps=3)
    for gap in ("rsp/logprob_gap_mean", "rsp/on/logprob_gap_mean", "rsp/off/logprob_gap_mean"):
        assert max(run.column(gap)) <= ROUNDING
    # Truncation alone is far above rounding; the correction weighs it away.
    assert min(run.column("rsp/truncation_gap_mean")) > 100 * ROUNDING
    assert max(run.column("rollout_corr/rollout_is_mean")) < 1
    assert run.column("rsp/rollouts") == [8] * 3
    assert run.column("rsp/length_mean") == [8, 5, 2]
    for step, length in ((1, 8), (2, 5), (3, 2)):
        rows = run.soft_prompts(step)
        assert {row["law"] for row in rows} == {"vocab"}
        assert sorted(row["length"] for row in rows) == [0] * 8 + [length] * 8
    # The tool was used, and the model spoke again.
    assert any("tool\n1+2=3\nassistant" in response for _, response in run.responses(1))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rsp.position=middle", "rsp.position='middle' is unknown"),
        ("data.train_files=/no/such.parquet", "does not exist"),
    ],
)
def test_bad_settings_end_before_ray_starts(
    override: str, message: str, task: Task, tmp_path: Path
) -> None:
    run = train(tmp_path / "run", task, override)
    assert run.returncode == exit_status.WOULD_COME_AGAIN
    assert run.output.count("error: ") == 1
    assert message in run.output
    assert "Traceback" not in run.output
    assert "Started a local Ray instance" not in run.output
