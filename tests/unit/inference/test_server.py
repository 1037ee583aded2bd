"""What the server's plug-in takes for a request with a soft prompt."""

from __future__ import annotations

import pytest

from rsp_rl.basics.errors import ConfigError
from rsp_rl.draws.record import EXTRA_ARG
from rsp_rl.inference.server import register, soft_prompt_arguments


def test_only_its_own_arguments_are_read() -> None:
    assert soft_prompt_arguments(None) == {}
    assert soft_prompt_arguments({"kv_transfer_params": {}, EXTRA_ARG: {"seed": 1}}) == {}
    asked = {"rsp_length": 20, "rsp_seed": 7}
    assert soft_prompt_arguments({**asked, "other": 1}) == asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rsp_lenght": 20}, "unknown extra argument rsp_lenght"),
        ({"rsp_position": "suffix"}, "without rsp_length"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        soft_prompt_arguments(arguments)


def test_patched_method_is_where_it_was() -> None:
    """Fails when vLLM moves or renames what the plug-in wraps."""
    import inspect

    from vllm.v1.engine.async_llm import AsyncLLM

    register()
    once = AsyncLLM.add_request
    register()
    assert AsyncLLM.add_request is once
    names = list(inspect.signature(once).parameters)
    assert names[:4] == ["self", "request_id", "prompt", "params"]
    generate = inspect.getsource(AsyncLLM.generate)
    assert "self.add_request(" in generate
