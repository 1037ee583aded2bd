"""Tokens that a model has and its tokenizer has not."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.vocabulary import MOST, unknown_tokens
from tests.unit import templates

LIMIT_FILE = "v1/worker/gpu/sample/logit_bias.py"


@pytest.mark.parametrize("more", [-2, 0, 6, MOST])
def test_padding_is_what_lies_beyond_the_tokenizer(more: int) -> None:
    tokenizer = templates.chatml()
    known = len(tokenizer)
    found = unknown_tokens(Qwen2Config(vocab_size=known + more), tokenizer)
    assert list(found) == list(range(known, known + more))


def test_another_models_tokenizer_is_refused() -> None:
    tokenizer = templates.chatml()
    config = Qwen2Config(vocab_size=len(tokenizer) + MOST + 1)
    with pytest.raises(ConfigError, match="1025 without a text"):
        unknown_tokens(config, tokenizer)


def test_vllm_takes_no_more() -> None:
    """Its V2 model runner's limit."""
    text = (Path(find_spec("vllm").origin).parent / LIMIT_FILE).read_text()
    assert f"MAX_NUM_LOGIT_BIAS_TOKENS = {MOST}" in text
