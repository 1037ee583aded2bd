"""Evaluation measures what was trained: its answers are those of training's own validation.

Full and LoRA, tied and untied, one rank and two, a vocabulary with padding: each layout's training
validates and saves at every step, and `rsp-rl eval` asks each checkpoint the same problems.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rsp_rl.data.arithmetic import write_dataset
from rsp_rl.evaluation.folder import EvaluationFolder
from rsp_rl.evaluation.samples import read_samples
from rsp_rl.tiny import make_tiny_model
from tests.integration.harness import ONE_UPDATE, REPOSITORY, Run, Task, train
from tests.integration.test_training import LORA, TWO_RANKS

PROBLEMS = 64
STEPS = (0, 1, 2)

#: Every step is validated and saved, and moves the weights far enough for answers to change.
EACH_STEP = (
    ONE_UPDATE,
    *("trainer.save_freq=1", "trainer.test_freq=1", "trainer.val_before_train=true"),
    "actor_rollout_ref.actor.optim.lr=2e-3",
)


def pad_vocabulary(model: Path) -> None:
    """Rows for tokens that the tokenizer does not have, one of them likelier than the turn's end.

    Training's rollouts never sample them (verl masks them).
    """
    network = AutoModelForCausalLM.from_pretrained(model)
    known = network.config.vocab_size
    network.resize_token_embeddings(known + 6, mean_resizing=False)
    with torch.no_grad():
        weight = network.lm_head.weight
        weight[known:] = 0
        weight[known] = 1.05 * weight[network.config.eos_token_id]
    network.save_pretrained(model)


def answers_in_training(run: Run, step: int) -> dict[str, str]:
    """By question."""
    rows = (run.folder / "samples" / "validation" / f"{step}.jsonl").read_text().splitlines()
    return {row["input"].split("\n")[1]: row["output"] for row in map(json.loads, rows)}


def answers_in_evaluation(folder: EvaluationFolder, step: int) -> dict[str, str]:
    lines = folder.problems("arithmetic").read_text().splitlines()
    questions = {row["id"]: row["question"] for row in map(json.loads, lines)}
    samples = read_samples(folder.step(step).samples("arithmetic"))
    return {questions[sample["problem"]]: sample["output"] for sample in samples}


@pytest.mark.parametrize(
    ("tied", "padded", "layout"),
    # With a padding token that likely, rollout and actor are apart.
    [(True, False, (*TWO_RANKS, *LORA)), (False, True, ("rsp.guard.max_mean_gap=5",))],
    ids=["lora-tied-two-ranks", "full-untied-padded"],
)
def test_an_evaluation_gives_the_answers_of_trainings_validation(
    tied: bool, padded: bool, layout: tuple[str, ...], tmp_path: Path
) -> None:
    model = make_tiny_model(
        tmp_path / "model", seed=1, steps=300, threads=1, tie_word_embeddings=tied
    )
    if padded:
        pad_vocabulary(model)
    write_dataset(tmp_path / "data", train_size=64, heldout_size=PROBLEMS)
    run = train(tmp_path / "run", Task(model, tmp_path / "data"), *EACH_STEP, *layout)
    assert run.returncode == 0, run.output[-4000:]
    command = [sys.executable, "-m", "rsp_rl.cli", "eval", str(run.folder), "max_tokens=24"]
    command += ["--protocol", "tiny", "--output", str(tmp_path / "evaluation")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    folder = EvaluationFolder(tmp_path / "evaluation")
    answers = []
    for step in STEPS:
        trained, evaluated = answers_in_training(run, step), answers_in_evaluation(folder, step)
        assert len(trained) == PROBLEMS
        assert {question: evaluated[question] for question in trained} == trained, step
        answers.append(trained)
    # What stays the same throughout would show nothing.
    assert answers[0] != answers[1] != answers[2]
