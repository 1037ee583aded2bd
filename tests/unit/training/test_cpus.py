"""CPUs that a run reserves: verl's own numbers, and a refusal in place of a wait for ever."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from omegaconf import DictConfig

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training.configs import compose_config
from rsp_rl.training.cpus import CONTROLLER, PER_RANK, check_cpus, cpus_needed


def config(*overrides: str) -> DictConfig:
    return compose_config("tiny_cpu", overrides)


def test_the_numbers_are_verls() -> None:
    """What verl and TransferQueue reserve; when upstream changes them, so must we."""
    from transfer_queue.controller import TransferQueueController
    from transfer_queue.storage.simple_storage import SimpleStorageUnit
    from transfer_queue.utils.common import get_placement_group
    from verl.single_controller.ray.base import ResourcePoolManager

    (field,) = (
        f for f in dataclasses.fields(ResourcePoolManager) if f.name == "max_colocate_count"
    )
    assert field.default == PER_RANK
    assert TransferQueueController._default_options["num_cpus"] == CONTROLLER
    assert SimpleStorageUnit._default_options["num_cpus"] == 1
    assert inspect.signature(get_placement_group).parameters["num_cpus_per_actor"].default == 1


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        ((), 5),
        (("trainer.n_gpus_per_node=2",), 8),
        (("trainer.nnodes=2", "trainer.n_gpus_per_node=8"), 50),
        (("transfer_queue.backend.SimpleStorage.num_data_storage_units=8",), 12),
        (("transfer_queue.backend.storage_backend=MooncakeStore",), 4),
    ],
)
def test_needed(overrides: tuple[str, ...], needed: int) -> None:
    assert cpus_needed(config(*overrides)) == needed


def test_too_few_are_refused_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_cpus(config("ray_kwargs.ray_init.num_cpus=5"))
    with pytest.raises(ConfigError, match=r"reserve 5 CPUs from Ray and .*num_cpus=4.*num_cpus=5"):
        check_cpus(config("ray_kwargs.ray_init.num_cpus=4"))


def test_without_a_number_ray_counts_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    counted = config("ray_kwargs.ray_init.num_cpus=null")
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    check_cpus(counted)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    with pytest.raises(ConfigError, match="this machine has 4"):
        check_cpus(counted)


def test_a_cluster_that_is_joined_is_asked_when_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = config("ray_kwargs.ray_init.num_cpus=1", "+ray_kwargs.ray_init.address=auto")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_cpus(few)
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    check_cpus(config("ray_kwargs.ray_init.num_cpus=1"))
