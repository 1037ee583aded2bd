"""A plug-in that is not registered, or does not load, ends a run before Ray starts."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import ray

from rsp_rl.basics.errors import ConfigError
from rsp_rl.training import plugins
from rsp_rl.training.configs import compose_config
from rsp_rl.training.plugins import check_plugins
from rsp_rl.training.train import run_training

OURS = EntryPoint("rsp_rl", "rsp_rl.training.verl_plugin", "verl.plugins")
STALE = EntryPoint("rsp_rl", "rsp_rl.plugin_of_old", "verl.plugins")
BAD = EntryPoint("bad", "no_such_plugin", "verl.plugins")
STALE_IN_VLLM = EntryPoint("rsp_rl", "rsp_rl.server_of_old:register", "vllm.general_plugins")

#: A process in which the plug-in cannot be imported, as with a verl that lacks what it takes.
BROKEN = """
import json, sys
from importlib.abc import MetaPathFinder

class Broken(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "rsp_rl.training.verl_plugin.cpu_platform":
            raise ImportError("cannot import name 'PlatformBase'")

sys.meta_path.insert(0, Broken())
import verl
from verl.plugin.platform.platform_manager import PlatformRegistry
from rsp_rl.training.plugins import check_plugins

registered = PlatformRegistry.registered_names()
try:
    check_plugins("cpu")
except Exception as error:
    print(json.dumps([type(error).__name__, str(error), registered]))
"""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """What is registered, to be changed by tests."""
    found = [OURS]
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [entry for entry in found if entry.group == group]
    )
    monkeypatch.delenv("VERL_USE_EXTERNAL_PLUGINS", raising=False)
    return found


def test_the_installed_ones_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_USE_EXTERNAL_PLUGINS", raising=False)
    assert [entry.name for entry in entry_points(group="verl.plugins")]
    check_plugins("cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_one_that_does_not_load(registered: list[EntryPoint], device: str) -> None:
    """Of an installation whose metadata is older than its code."""
    registered[:] = [STALE]
    with pytest.raises(ConfigError) as raised:
        check_plugins(device)
    said = str(raised.value)
    assert "the plug-in rsp_rl (rsp_rl.plugin_of_old) cannot be loaded: ModuleNotFound" in said
    assert "; installed: verl " in said
    assert said.endswith("install rsp_rl again (pip install -e . where its pyproject.toml is)")


def test_vllms_that_does_not_load(registered: list[EntryPoint]) -> None:
    registered.append(STALE_IN_VLLM)
    with pytest.raises(ConfigError, match=r"rsp_rl\.server_of_old.* installed: vllm"):
        check_plugins("cpu")


def test_none_is_registered(registered: list[EntryPoint]) -> None:
    """On a GPU nothing of it is needed."""
    registered.clear()
    check_plugins("cuda")
    with pytest.raises(ConfigError, match="no plug-in rsp_rl is registered with verl"):
        check_plugins("cpu")


@pytest.mark.parametrize(
    ("policy", "refused"),
    [
        (None, "plug-in bad .*No module named 'no_such_plugin'"),
        ("none", "VERL_USE_EXTERNAL_PLUGINS=none keeps verl from loading rsp_rl"),
        ("bad", "VERL_USE_EXTERNAL_PLUGINS=bad keeps verl from loading rsp_rl"),
        ("rsp_rl", None),
        ("rsp_rl, bad", "plug-in bad .*No module named 'no_such_plugin'"),
    ],
)
def test_verls_own_variable_says_which_count(
    registered: list[EntryPoint],
    policy: str | None,
    refused: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered.append(BAD)
    if policy is not None:
        monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", policy)
    if refused is None:
        check_plugins("cpu")
        return
    with pytest.raises(ConfigError, match=refused):
        check_plugins("cpu")


def test_verl_goes_on_without_it_and_the_check_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BROKEN],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    kind, said, names = json.loads(done.stdout.splitlines()[-1])
    assert "cpu" not in names  # and verl said nothing
    assert "plugin" not in done.stderr
    assert kind == "ConfigError"
    assert "ImportError: cannot import name 'PlatformBase'" in said
    assert "rsp-rl is for verl==" in said


def test_a_run_ends_before_ray(
    registered: list[EntryPoint], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registered[:] = [STALE]
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    config = compose_config("tiny_cpu", [f"run_dir={tmp_path}"])
    with pytest.raises(ConfigError, match=r"rsp_rl\.plugin_of_old"):
        run_training(config)
