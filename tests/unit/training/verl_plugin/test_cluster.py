"""What a run finds on a Ray cluster before verl looks at it."""

from __future__ import annotations

import pytest

from rsp_rl.basics.errors import ConfigError, RunBrokenError
from rsp_rl.training.verl_plugin import cluster


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """A cluster's resources; no time to wait for others."""
    resources = {"in_use": False, "devices": 2, "cpus": 8}
    monkeypatch.setattr(cluster, "WAIT_S", 0)
    monkeypatch.setattr(cluster, "_transfer_queue_is_in_use", lambda: resources["in_use"])
    monkeypatch.setattr(cluster, "_free_devices", lambda: resources["devices"])
    monkeypatch.setattr(cluster, "_cpus", lambda: resources["cpus"])
    return resources


def test_what_is_enough_is_taken_at_once(found: dict[str, float]) -> None:
    cluster.wait_for_cluster(ranks=2, cpus=8)


def test_too_few_cpus_are_an_error_and_no_wait_for_ever(found: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"reserve 9 CPUs .* this Ray cluster has 8"):
        cluster.wait_for_cluster(ranks=2, cpus=9)


def test_another_run_is_named_first(found: dict[str, float]) -> None:
    found["in_use"] = True
    with pytest.raises(RunBrokenError, match="another run uses this Ray cluster"):
        cluster.wait_for_cluster(ranks=2, cpus=9)


def test_too_few_devices_are_left_to_verl(found: dict[str, float]) -> None:
    found["devices"] = 1
    cluster.wait_for_cluster(ranks=2, cpus=8)
