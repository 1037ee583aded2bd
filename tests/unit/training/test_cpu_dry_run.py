"""The dry run on a CPU: all that a start checks, memory and seconds, and nothing left behind."""

from __future__ import annotations

import os
import re
from pathlib import Path

import psutil
import pytest

from rsp_rl.data.arithmetic import write_dataset
from rsp_rl.models.shape import ModelShape
from rsp_rl.tiny import make_tiny_model
from rsp_rl.training.configs import compose_config
from rsp_rl.training.cpu_dry_run import main
from rsp_rl.training.cpu_estimate import OVERHEAD, cpu_memory

#: SmolLM2-135M's.
SMOLLM2 = ModelShape(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    max_position_embeddings=8192,
    tied=True,
    attention_bias=False,
)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("task")
    model = make_tiny_model(folder / "model", steps=0)
    write_dataset(folder / "data", train_size=32, heldout_size=4)
    return [
        f"actor_rollout_ref.model.path={model}",
        f"data.train_files={folder / 'data' / 'train.parquet'}",
        f"data.val_files={folder / 'data' / 'heldout.parquet'}",
        "data.train_batch_size=8",
    ]


@pytest.fixture(autouse=True)
def same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_from_a_command_to_seconds(
    task: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*task]) == 0
    output = capfd.readouterr().out
    assert output.startswith("rsp-rl train --config-name real_cpu actor_rollout_ref.model.path=")
    longest = int(re.search(r"^data\.max_prompt_length: (\d+)$", output, re.M)[1])
    assert 10 < longest < 40
    assert "rollouts: 8 prompts x 8 = 64" in output
    assert re.search(
        r"^total: \d+\.\d; available: \d+\.\d of \d+\.\d: (fits|DOES NOT)", output, re.M
    )
    parts = [int(re.search(rf"^{part}: (\d+)", output, re.M)[1]) for part in ("rollout", "update")]
    assert all(part >= 0 for part in parts)
    assert "run of" in output
    assert list(tmp_path.iterdir()) == []


def test_what_a_start_refuses_is_one_line(task: list[str], capfd: pytest.CaptureFixture) -> None:
    assert main([*task, "rsp.length=-1"]) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: rsp.length=-1")
    assert main(["--config-name", "dapo_rsp", *task]) == 1
    assert "this dry run is for CPUs" in capfd.readouterr().err


def test_memory_of_a_small_model_is_its_parts() -> None:
    config = compose_config("real_cpu", [])
    memory = cpu_memory(config, SMOLLM2, kv_cache=1 << 30)
    millions = SMOLLM2.parameters / 1e6
    assert 134 < millions < 136
    assert memory.training == 16 * SMOLLM2.parameters
    assert memory.copies == memory.vllm == 8 * SMOLLM2.parameters
    assert memory.total == sum(memory.parts().values()) > OVERHEAD + memory.training
    in_bf16 = compose_config("real_cpu", ["+precision=bf16"])
    assert cpu_memory(in_bf16, SMOLLM2, 0).activations * 2 == memory.activations


def test_a_machine_that_is_too_small(
    task: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    real = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: real._replace(available=1 << 30))
    assert main([*task]) == 0
    output = capfd.readouterr().out
    assert "DOES NOT FIT" in output
    assert "to make it fit: a smaller ppo_max_token_len_per_gpu" in output
