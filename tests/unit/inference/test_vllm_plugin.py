"""A plug-in that vLLM cannot use ends vLLM's start, and vLLM does load it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import vllm.plugins

from rsp_rl.basics.errors import ConfigError

OURS = EntryPoint("rsp_rl", "rsp_rl.inference.vllm_plugin:register", "vllm.general_plugins")


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM loads plug-ins once a process; here anew, and ours alone."""
    monkeypatch.setattr(vllm.plugins, "plugins_loaded", False)
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [OURS])


@pytest.mark.usefixtures("_fresh")
def test_vllm_loads_it() -> None:
    from vllm.v1.engine.async_llm import AsyncLLM

    vllm.plugins.load_general_plugins()
    assert AsyncLLM.add_request.takes_soft_prompts


@pytest.mark.usefixtures("_fresh")
def test_one_that_fails_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a vLLM that lacks what it takes; an error of its import vLLM would only log."""
    monkeypatch.setitem(sys.modules, "rsp_rl.inference.vllm_renderer", None)
    monkeypatch.delattr("rsp_rl.inference.vllm_renderer", raising=False)
    with pytest.raises(ConfigError) as raised:
        vllm.plugins.load_general_plugins()
    said = str(raised.value)
    assert said.startswith("rsp_rl's plug-in for vLLM cannot be loaded: ")
    assert "; installed: vllm " in said
    assert "set VLLM_PLUGINS= to serve without plug-ins" in said


def test_its_import_cannot_fail() -> None:
    """It loads nothing but Python's own and this package's lowest room."""
    code = (
        "import json, sys\nhad = set(sys.modules)\nimport rsp_rl.inference.vllm_plugin\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - had})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(json.loads(done.stdout)) - sys.stdlib_module_names == {"rsp_rl"}
