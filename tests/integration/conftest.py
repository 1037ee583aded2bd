"""What the end-to-end tests share: a slightly warmed-up tiny model and its data."""

import os
from pathlib import Path

import pytest

from rsp_rl.data.arithmetic import write_dataset
from rsp_rl.tiny import make_tiny_model
from tests.integration.harness import ONE_UPDATE, Run, Task, train

# GiB; vLLM's CPU target would otherwise take a share of the machine's memory.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here runs on the real stack and is slow."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Model and data of the arithmetic task."""
    folder = tmp_path_factory.mktemp("task")
    model = make_tiny_model(folder / "model", seed=1, steps=300, threads=1)
    write_dataset(folder / "data", train_size=64, heldout_size=8)
    return Task(model, folder / "data")


@pytest.fixture(scope="session")
def uninterrupted(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four steps with RSP on both sides, packed, dynamic batch size, a checkpoint each step."""
    return train(
        tmp_path_factory.mktemp("uninterrupted"),
        task,
        ONE_UPDATE,
        "trainer.save_freq=1",
        "rsp.seeded_sampling=true",
        "trainer.val_before_train=true",
        steps=4,
    )
