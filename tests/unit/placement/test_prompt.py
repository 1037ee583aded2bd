"""What all kinds of prompt share: lengths, how much they grow, the placeholder, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.chat import check_chat_template, place_in_chat
from rsp_rl.placement.prompt import POSITIONS, extra_tokens, placeholder_id
from rsp_rl.placement.text import place_in_text, place_in_turn
from tests.properties import examples
from tests.unit import templates
from tests.unit.placement.prompts import (
    INSTRUCTION,
    QUESTION,
    USER_TEXT,
    asked,
    plain_ids,
)
from tests.unit.templates import FAMILIES, tokenizer_of

# Lengths.


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_length_zero_is_the_plain_prompt(family: str, position: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, asked(QUESTION), 0, position)
    assert placed.token_ids == plain_ids(tokenizer, asked(QUESTION))
    expected = 0 if position == "prefix" else place_in_chat(tokenizer, asked(QUESTION), 1).start
    assert placed.start == expected
    raw = place_in_text(tokenizer, QUESTION, 0, position)
    assert raw.token_ids == tokenizer(QUESTION).input_ids
    assert raw.start == (0 if position == "prefix" else len(raw.token_ids))
    assert extra_tokens(tokenizer, 0, position) == 0


@pytest.mark.parametrize("family", FAMILIES)
@given(
    content=USER_TEXT,
    closing=st.sampled_from(["", f"\n{INSTRUCTION}", INSTRUCTION, f"{INSTRUCTION} \n"]),
    length=st.sampled_from([0, 1, 7, 20, 128]),
    position=st.sampled_from(POSITIONS),
)
@examples(100)
def test_extra_tokens_bounds_the_growth(
    family: str, content: str, closing: str, length: int, position: str
) -> None:
    tokenizer = tokenizer_of(family)
    bound = extra_tokens(tokenizer, length, position)
    messages = asked(content + closing)
    placed = place_in_chat(tokenizer, messages, length, position)
    growth = len(placed.token_ids) - len(plain_ids(tokenizer, messages))
    assert length <= growth <= bound
    if position != "infix":
        assert growth == bound == length
    raw = place_in_text(tokenizer, content + closing, length, position)
    plain = place_in_text(tokenizer, content + closing, 0, position)
    assert len(raw.token_ids) - len(plain.token_ids) <= bound


@pytest.mark.parametrize("content", ["x" + " " * 300, " " * 300, "\n \n" * 99 + INSTRUCTION])
@pytest.mark.parametrize("family", FAMILIES)
def test_infix_does_not_shield_blanks_that_a_template_strips(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, asked(content), 20, "infix")
    growth = len(placed.token_ids) - len(plain_ids(tokenizer, asked(content)))
    assert growth <= extra_tokens(tokenizer, 20, "infix")


@pytest.mark.parametrize(
    ("length", "position", "cause"),
    [(-1, "suffix", "-1 is negative"), (3, "middle", "'middle'"), (0, "SUFFIX", "'SUFFIX'")],
)
def test_bad_length_or_position(length: int, position: str, cause: str) -> None:
    tokenizer = tokenizer_of("chatml")
    for call in (
        lambda: place_in_chat(tokenizer, asked(QUESTION), length, position),
        lambda: place_in_text(tokenizer, QUESTION, length, position),
        lambda: place_in_turn(tokenizer, "", QUESTION, "", "", length, position),
        lambda: extra_tokens(tokenizer, length, position),
    ):
        with pytest.raises(PlacementError, match=cause):
            call()


# The placeholder.


def test_placeholder_is_padding_else_end_of_sequence() -> None:
    chatml, llama_3 = tokenizer_of("chatml"), tokenizer_of("llama_3")
    assert placeholder_id(chatml) == chatml.convert_tokens_to_ids("<|endoftext|>")
    assert llama_3.pad_token_id is None
    assert placeholder_id(llama_3) == llama_3.convert_tokens_to_ids("<|eot_id|>")


def test_placeholder_zero_is_one() -> None:
    tokenizer = templates.gemma()
    tokenizer.pad_token = "<unk>"
    assert placeholder_id(tokenizer) == 0


def test_tokenizer_without_any_placeholder() -> None:
    tokenizer = templates.llama_3()
    tokenizer.eos_token = None
    with pytest.raises(PlacementError, match="neither a padding nor an end-of-sequence"):
        place_in_chat(tokenizer, asked(QUESTION), 3, "suffix")
    with pytest.raises(PlacementError, match="neither a padding nor"):
        check_chat_template(tokenizer, "prefix")
