"""Padding and placeholders are tokens of the model."""

from __future__ import annotations

import pytest
from transformers import Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.vocabulary import check_placeholder, check_tokens, vocabulary_size
from tests.unit import templates


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
    with pytest.raises(ConfigError, match=r"^it begins with '<\|begin_of_text\|>' twice"):
        check_tokens(tokenizer, [bos, bos, 5], 6, "it")


def test_the_size_is_the_text_models() -> None:
    assert vocabulary_size(Qwen2Config(vocab_size=77)) == 77
