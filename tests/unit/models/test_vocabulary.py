"""Padding and placeholders are tokens of the model."""

from __future__ import annotations

import pytest
from transformers import Qwen2Config

from rsp_rl.basics.errors import ConfigError
from rsp_rl.models.vocabulary import check_placeholder, vocabulary_size
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


def test_the_size_is_the_text_models() -> None:
    assert vocabulary_size(Qwen2Config(vocab_size=77)) == 77
