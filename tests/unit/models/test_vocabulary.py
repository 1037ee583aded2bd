"""Tokens that a model has and its tokenizer has not; padding and placeholders are the model's."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast, Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.vocabulary import (
    MOST,
    check_numbering,
    check_placeholder,
    check_tokens,
    suppression,
    unknown_tokens,
    vocabulary_size,
)
from tests.unit import templates

LIMIT_FILE = "v1/worker/gpu/sample/logit_bias.py"


@pytest.mark.parametrize("more", [-2, 0, 6, MOST])
def test_padding_is_what_lies_beyond_the_tokenizer(more: int) -> None:
    tokenizer = templates.chatml()
    known = len(tokenizer)
    found = unknown_tokens(Qwen2Config(vocab_size=known + more), tokenizer)
    assert list(found) == list(range(known, known + more))


def _with_gap() -> PreTrainedTokenizerFast:
    """Its last token of all has a number far behind the others."""
    pieces = {"<eos>": 0, "a": 1, "b": 5}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(pieces, unk_token="a")), eos_token="<eos>"
    )


def test_ids_that_a_tokenizer_leaves_out_are_unknown_and_the_others_known() -> None:
    assert unknown_tokens(Qwen2Config(vocab_size=8), _with_gap()) == [2, 3, 4, 6, 7]
    assert suppression(Qwen2Config(vocab_size=3), _with_gap()) == {2: -100.0}


def test_a_tokenizer_that_leaves_ids_out_is_not_trained_with() -> None:
    """verl would keep `b` out of every rollout; at a turn's end no rollout would stop."""
    with pytest.raises(ConfigError, match=r"leaves ids out: it has 3 tokens, 'b' is number 5"):
        check_numbering(_with_gap())
    for family in templates.FAMILIES:
        check_numbering(templates.tokenizer_of(family))


def test_more_than_vllm_keeps_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = templates.chatml()
    config = Qwen2Config(vocab_size=len(tokenizer) + MOST + 1)
    assert not unknown_tokens(config, tokenizer)
    assert "1025 without a text" in caplog.text


def test_vllm_takes_no_more() -> None:
    """Its V2 model runner's limit."""
    text = (Path(find_spec("vllm").origin).parent / LIMIT_FILE).read_text()
    assert f"MAX_NUM_LOGIT_BIAS_TOKENS = {MOST}" in text


def test_a_padding_token_beyond_the_embedding_table() -> None:
    tokenizer = templates.chatml()
    rows = len(tokenizer)
    check_placeholder(tokenizer, rows)
    check_placeholder(tokenizer, None)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(ConfigError, match=rf"'\[PAD\]' is number {rows}, .* has {rows} rows; set"):
        check_placeholder(tokenizer, rows)
    tokenizer.pad_token = "<|im_end|>"  # as the message says
    check_placeholder(tokenizer, rows)


def test_the_end_of_sequence_stands_in_where_there_is_no_padding() -> None:
    tokenizer = templates.llama_3()
    end = tokenizer.eos_token_id
    check_placeholder(tokenizer, end + 1)
    with pytest.raises(ConfigError, match=f"number {end}"):
        check_placeholder(tokenizer, end)


def test_tokens_of_a_prompt() -> None:
    tokenizer = templates.llama_3()
    bos = tokenizer.bos_token_id
    check_tokens(tokenizer, [bos, 5, bos], 6, "it")
    check_tokens(tokenizer, [], 6, "it")
    check_tokens(templates.chatml(), [5, 5], None, "it")
    with pytest.raises(ConfigError, match=r"^it holds '.', token 6, .* 6 rows"):
        check_tokens(tokenizer, [bos, 6, 5], 6, "it")
    with pytest.raises(ConfigError, match=r"^it holds -1, which is no"):
        check_tokens(tokenizer, [5, -1], None, "it")
    with pytest.raises(ConfigError, match=r"^it begins with '<\|begin_of_text\|>' twice"):
        check_tokens(tokenizer, [bos, bos, 5], 6, "it")


def test_the_size_is_the_text_models() -> None:
    assert vocabulary_size(Qwen2Config(vocab_size=77)) == 77
