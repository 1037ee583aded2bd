"""Trackers: refused before engines start where they cannot work, and no cost where they fail."""

from __future__ import annotations

import os
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training import trackers
from rsp_rl.training.trackers import PACKAGES, add_own_record, check_trackers, tracker_names


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """A home without logins, all packages installed; the hosts that were asked, and answered."""
    kept = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", kept)
    monkeypatch.setattr(trackers, "find_spec", lambda name: ModuleSpec(name, None))
    asked: list[tuple[str, int]] = []

    class Connection:
        def close(self) -> None:
            """Closed."""

    def connect(address: tuple[str, int], timeout: float) -> Connection:
        asked.append(address)
        return Connection()

    monkeypatch.setattr(socket, "create_connection", connect)
    return asked


def check(*names: str, **trainer: object) -> None:
    check_trackers(OmegaConf.create({"trainer": {"logger": list(names), **trainer}}))


def test_verls_trackers_are_known() -> None:
    from verl.utils.tracking import Tracking

    assert {*Tracking.supported_backend, "tracking"} == PACKAGES.keys()


@pytest.mark.parametrize(
    ("logger", "names"),
    [(["console", "file"], ["console", "file"]), ("console", ["console"]), (None, [])],
)
def test_one_or_several(logger: object, names: list[str]) -> None:
    assert tracker_names(OmegaConf.create({"trainer": {"logger": logger}})) == names


def test_local_trackers_need_nothing(tried: list) -> None:
    check("console", "file", "tensorboard", "mlflow", "trackio")
    assert tried == []


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match="names 'wandbb', which is no tracker"):
        check("console", "wandbb")


def test_a_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    check("console", "file")
    with pytest.raises(ConfigError, match="needs the package wandb: install it"):
        check("console", "wandb")


@pytest.mark.parametrize("name", ["wandb", "tracking", "swanlab"])
def test_a_tracker_without_a_key_is_refused(name: str) -> None:
    key = "SWANLAB_API_KEY" if name == "swanlab" else "WANDB_API_KEY"
    with pytest.raises(ConfigError, match=rf"no key for it \({key}, .* does not carry your shell"):
        check(name)


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"WANDB_API_KEY": "k"}, ("api.wandb.ai", 443)),
        ({"WANDB_IDENTITY_TOKEN_FILE": "/f"}, ("api.wandb.ai", 443)),
        ({"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://w.lab:8080"}, ("w.lab", 8080)),
        ({"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://w.lab"}, ("w.lab", 80)),
        ({"WANDB_API_KEY": "k", "HTTPS_PROXY": "http://p:1"}, None),
        ({"WANDB_MODE": "offline"}, None),
        ({"WANDB_MODE": "disabled"}, None),
    ],
)
def test_a_tracker_with_a_key_is_asked_for(
    variables: dict[str, str], host: tuple | None, tried: list
) -> None:
    os.environ.update(variables)
    check("wandb")
    assert tried == ([host] if host else [])


def test_variables_of_the_trainers_process_count() -> None:
    config = OmegaConf.create({"trainer": {"logger": ["wandb"]}})
    check_trackers(config, {"WANDB_MODE": "offline"})
    os.environ["WANDB_MODE"] = "offline"
    with pytest.raises(ConfigError, match="no key"):
        check_trackers(config, {})


def test_a_login_is_a_key(tmp_path: Path) -> None:
    login = tmp_path / ".netrc"
    login.write_text("machine api.wandb.ai\n  login user\n  password abc\n")
    login.chmod(0o600)
    check("wandb")
    os.environ["WANDB_BASE_URL"] = "https://other.host"
    with pytest.raises(ConfigError, match="no key"):
        check("wandb")
    login.write_text("what is this")
    with pytest.raises(ConfigError, match="no key"):
        check("wandb")


def test_a_host_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    os.environ["WANDB_API_KEY"] = "k"
    with pytest.raises(ConfigError, match=r"api\.wandb\.ai does not answer .*WANDB_MODE=offline"):
        check("wandb")


def test_variables_that_verl_would_not_find() -> None:
    with pytest.raises(ConfigError, match="VOLC_ACCESS_KEY_ID is not set here"):
        check("vemlp_wandb")


@pytest.mark.parametrize("named", [None, [], "console", ["console"], ["file", "console"]])
def test_the_runs_own_record_is_always_kept(named: object) -> None:
    config = OmegaConf.create({"trainer": {"logger": named}})
    add_own_record(config)
    assert tracker_names(config).count("file") == 1
    assert ("console" in tracker_names(config)) == ("console" in (named or []))
