"""Where the placeholders go in prompts that are tokenised already."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.placement.prompt import POSITIONS, added_tokens
from rsp_rl.placement.text import place_in_text
from rsp_rl.placement.tokens import place_in_tokens
from tests.properties import examples
from tests.unit.placement.prompts import (
    BYTE_LEVEL,
    DESCRIPTION,
    INSTRUCTION,
    QUESTION,
    USER_TEXT,
    asked,
    plain_ids,
    without,
)
from tests.unit.templates import FAMILIES, tokenizer_of


@pytest.mark.parametrize("position", ["suffix", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
@given(content=USER_TEXT, length=st.sampled_from([0, 1, 20]))
@examples(50)
def test_tokens_of_a_chat_are_placed_as_its_messages_or_refused(
    family: str, position: str, content: str, length: int
) -> None:
    """Refused only where the user typed a token of the tokenizer's: anybody's turn, by the look."""
    tokenizer = tokenizer_of(family)
    tokens = plain_ids(tokenizer, asked(content))
    try:
        placed = place_in_tokens(tokenizer, tokens, length, position)
    except PlacementError:
        assert position == "suffix"
        assert any(token in content for token in (*added_tokens(tokenizer), "<tool_response>"))
        return
    if length or position == "suffix":
        assert placed == place_in_chat(tokenizer, asked(content), length, position)
    assert without(placed, length) == tokens


@pytest.mark.parametrize("family", BYTE_LEVEL)
@pytest.mark.parametrize("content", [QUESTION, f"{QUESTION}\n{INSTRUCTION}", "x\n\ny 数 "])
def test_infix_in_tokens(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_tokens(tokenizer, plain_ids(tokenizer, asked(content)), 20, "infix")
    expected = place_in_chat(tokenizer, asked(content.rstrip()), 20, "infix")
    if content == content.rstrip():
        assert placed == expected
    assert DESCRIPTION in tokenizer.decode(placed.token_ids[: placed.start])


@pytest.mark.parametrize("position", POSITIONS)
def test_tokens_of_raw_text(position: str) -> None:
    tokenizer = tokenizer_of("llama_3")
    tokens = tokenizer(QUESTION).input_ids
    expected = place_in_text(tokenizer, QUESTION, 3, position)
    assert place_in_tokens(tokenizer, tokens, 3, position) == expected


def test_infix_in_tokens_that_are_not_their_texts() -> None:
    tokenizer = tokenizer_of("chatml")
    letters = [tokenizer.encode(letter)[0] for letter in "special"]
    assert tokenizer.encode("special") != letters
    with pytest.raises(PlacementError, match="use position suffix or prefix"):
        place_in_tokens(tokenizer, letters, 3, "infix")
