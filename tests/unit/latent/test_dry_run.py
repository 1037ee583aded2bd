"""What a training would be: stages by hand, and memory against what is kept in fact."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rsp_rl.basics.errors import ConfigError
from rsp_rl.cli import main
from rsp_rl.data.step_problems import write_step_problems
from rsp_rl.latent.dry_run import Stage, kept_bytes, memory, plan_lines, stages
from rsp_rl.latent.epochs import longest_rows
from rsp_rl.latent.folder import load_thinker
from rsp_rl.latent.layout import Row
from rsp_rl.latent.problem_tokens import ProblemTokens, tokenize
from rsp_rl.latent.settings import PRESETS, Settings


def test_stages_of_the_papers_gsm8k():
    """Stage 0 is the CoT model's; after stage 3 all steps are gone and the thoughts stay six."""
    assert stages(PRESETS["gsm8k"]) == [
        Stage(1, (3, 6), 2),
        Stage(2, (6, 9), 4),
        Stage(3, (9, 12), 6),
        Stage(4, (12, 25), 6),
    ]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("cot", [Stage(0, (0, 4), 0)]),
        ("icot", [Stage(0, (0, 4), 0)]),
        ("no_thought", [Stage(0, (0, 2), 0), Stage(1, (2, 4), 0)]),
        ("pause", [Stage(3, (0, 4), 4)]),
        ("pause_as_thought", [Stage(0, (0, 2), 0), Stage(1, (2, 4), 2)]),
    ],
)
def test_stages_of_a_method(method, expected):
    settings = Settings(
        method=method, epochs=4, epochs_per_stage=2, max_stage=2, thoughts_per_step=2
    )
    assert stages(settings) == expected


def test_the_arithmetic_of_steps(step_problems):
    settings = Settings(epochs=3, epochs_per_stage=1, max_stage=1, batch_size=50)
    lines = list(plan_lines(settings, step_problems, step_problems[:5], 3))
    assert (
        "# a step: 50 problems over 3 processes, 17 each in 1 micro-batches of at most 32" in lines
    )
    assert "# stage 2 (all steps gone): epochs 3 to 3, 2 steps, 1 thoughts or pauses" in lines
    assert lines[-1] == "# steps: 2 an epoch, 6 in all"
    assert "# validation: 5 of 5 problems after each epoch" in lines
    icot = replace(settings, method="icot")
    assert "# taken away in the last epoch: 16 tokens of the steps" in list(
        plan_lines(icot, step_problems, [], 1)
    )


def test_what_is_kept_of_a_linear_model(gpt2):
    """A second sequence of the same length keeps as much again: none is counted twice or lost."""
    thinker = load_thinker(gpt2)
    row = Row((5, 6, 7, 8, 9), 3, 0, 3, 0)
    one = kept_bytes(thinker, row)
    layers = 2 * 5 * 32 * 4  # layers, tokens, width, bytes: the least that two layers keep
    assert one > 8 * layers
    longer = kept_bytes(thinker, Row((5, 6, 7, 8, 9) * 2, 8, 0, 8, 0))
    assert 1.8 < longer / one < 2.2
    # The output layer's share: log-probs of each token with a loss.
    more = kept_bytes(thinker, replace(row, first_label=1))
    vocabulary = thinker.model.config.vocab_size
    assert more - one >= 2 * vocabulary * 4


def test_dropout_is_counted(gpt2):
    thinker = load_thinker(gpt2)
    row = Row((5, 6, 7, 8, 9), 3, 0, 3, 0)
    without = kept_bytes(thinker, row)
    for part in thinker.model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.1
    thinker.model.eval()
    assert kept_bytes(thinker, row) > without


def test_thoughts_are_counted(gpt2):
    thinker = load_thinker(gpt2)
    tokens = (5, 6, 7, 8, 9, 4, 4, 3)
    pauses = kept_bytes(thinker, Row(tokens, 3, 4, 7, 0))
    assert kept_bytes(thinker, Row(tokens, 3, 4, 7, 4)) > pauses
    assert kept_bytes(thinker, Row(tokens, 3, 4, 7, 4), recompute=True) > 2 * pauses


def test_memory_of_a_process(gpt2):
    thinker = load_thinker(gpt2)
    row = Row((5, 6, 7), 2, 0, 2, 0)
    found = memory(thinker, Settings(batch_size=8, micro_batch_size=32), row)
    count = sum(weight.numel() for weight in thinker.model.parameters())
    assert found.state == 16 * count
    assert found.rows == 8
    assert found.total == found.state + 8 * kept_bytes(thinker, row)
    shared = memory(thinker, Settings(batch_size=8, micro_batch_size=32), row, processes=3)
    assert shared.rows == 3


def test_a_step_decoder_is_a_second_model(gpt2):
    thinker = load_thinker(gpt2)
    row = Row((5, 6, 7, 8, 9), 2, 1, 3, 1, ((7, 8, 9),))
    settings = Settings(batch_size=8)
    without = memory(thinker, settings, row)
    found = memory(thinker, replace(settings, step_decoder=1.0), row)
    assert found.state == 2 * without.state
    assert found.row > 1.5 * without.row


def test_longest_sequences(gpt2):
    thinker = load_thinker(gpt2)
    long = ProblemTokens((1, 2), ((3,),) * 4, (5,))
    short = ProblemTokens((1,), ((3,),), (5,))
    settings = Settings(epochs=2, epochs_per_stage=1, max_stage=2)
    found = longest_rows([short, long], settings, thinker.markers, 256, "f.jsonl")
    assert {stage: len(row.token_ids) for stage, row in found.items()} == {0: 9, 1: 9}
    mixed = replace(settings, uniform_stages=0.5)
    found = longest_rows([short, long], mixed, thinker.markers, 256, "f.jsonl")
    assert {stage: len(row.token_ids) for stage, row in found.items()} == {0: 9, 1: 9, 2: 9, 3: 7}
    far = replace(long, question=(1,) * 252)
    with pytest.raises(ConfigError, match=r"f\.jsonl, problem 1: its sequence has 259 tokens"):
        longest_rows([short, far], settings, thinker.markers, 256, "f.jsonl")


@pytest.fixture
def command(gpt2, step_problems, tmp_path):
    write_step_problems(tmp_path / "steps.jsonl", step_problems)
    files = [f"--{name}={tmp_path / 'steps.jsonl'}" for name in ("train", "validation")]
    return ["latent", "train", "--dry-run", *files, "--output", str(tmp_path / "run")]


def test_the_command_writes_nothing(command, gpt2, tmp_path, capsys):
    assert main([*command, "--model", str(gpt2), "--memory-gb", "1"]) == 0
    printed = capsys.readouterr().out
    assert "# longest sequence at stage 6: " in printed
    assert printed.rstrip().endswith(" of 1: fits")
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit(command, gpt2, capsys):
    tokens = ["--thoughts-per-step", "30", "--max-stage", "2", "--epochs-per-stage", "1"]
    rows = ["--batch-size", "100000", "--micro-batch-size", "100000", "--epochs", "4"]
    assert main([*command, "--model", str(gpt2), "--memory-gb", "1", *tokens, *rows]) == 0
    assert capsys.readouterr().out.rstrip().endswith(" of 1: DOES NOT FIT")


def test_without_the_model_all_else_is_said_first(command, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([*command, "--model", "./nowhere"]) == 1
    said = capsys.readouterr()
    assert "# steps: 1 an epoch, 50 in all" in said.out
    assert "no such folder" in said.err


def test_tokens_are_those_of_the_model(gpt2, step_problems):
    """The lengths that are said are of the very sequences that are trained on."""
    thinker = load_thinker(gpt2)
    tokens = tokenize(step_problems, thinker.tokenizer)
    found = longest_rows(tokens, Settings(epochs=1), thinker.markers, 256, "f")
    assert len(found[0].token_ids) == max(
        len(one.question) + 2 + len(one.solution) for one in tokens
    )
