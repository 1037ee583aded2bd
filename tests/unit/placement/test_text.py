"""Where the placeholders go in raw texts and in literal templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.prompt import POSITIONS
from rsp_rl.placement.text import place_in_text, place_in_turn
from tests.properties import examples
from tests.unit.placement.prompts import (
    BYTE_LEVEL,
    DESCRIPTION,
    INSTRUCTION,
    QUESTION,
    USER_TEXT,
    asked,
    before_and_after,
    plain_ids,
    without,
)
from tests.unit.templates import FAMILIES, tokenizer_of

# Raw texts.


@pytest.mark.parametrize("family", FAMILIES)
@given(text=USER_TEXT, length=st.sampled_from([1, 3, 20]))
@examples(50)
def test_raw_text_keeps_the_tokenizers_own_tokens(family: str, text: str, length: int) -> None:
    tokenizer = tokenizer_of(family)
    plain = tokenizer(text).input_ids
    if tokenizer.bos_token and text.startswith(tokenizer.bos_token):
        plain = plain[1:]  # one BOS is enough
    suffix = place_in_text(tokenizer, text, length, "suffix")
    assert (suffix.start, without(suffix, length)) == (len(plain), plain)
    prefix = place_in_text(tokenizer, text, length, "prefix")
    assert (prefix.start, prefix.token_ids[length:]) == (0, plain)


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_infix_in_raw_text(family: str) -> None:
    tokenizer = tokenizer_of(family)
    bos = tokenizer.bos_token or ""
    placed = place_in_text(tokenizer, f"{QUESTION}\n{INSTRUCTION}", 20, "infix")
    before, after = before_and_after(tokenizer, placed, 20)
    assert (before, after) == (f"{bos}{QUESTION}\n{DESCRIPTION}", f"\n{INSTRUCTION}")
    placed = place_in_text(tokenizer, QUESTION, 20, "infix")
    assert before_and_after(tokenizer, placed, 20) == (f"{bos}{QUESTION}\n{DESCRIPTION}", "")


# Literal templates.

#: What a ChatML template, written out, puts before and behind a user's message.
CHATML_TURN = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("family", FAMILIES)
@given(question=USER_TEXT, position=st.sampled_from(POSITIONS))
@examples(50)
def test_turn_without_a_soft_prompt_is_the_plain_text(
    family: str, question: str, position: str
) -> None:
    """Also where the tokenizer does not know the template's special tokens."""
    tokenizer = tokenizer_of(family)
    opening, closing = CHATML_TURN
    text = f"{opening}{question}\n{INSTRUCTION}{closing}"
    placed = place_in_turn(tokenizer, opening, question, f"\n{INSTRUCTION}", closing, 0, position)
    assert placed.token_ids == tokenizer(text).input_ids


@given(question=USER_TEXT, length=st.sampled_from([1, 20]))
@examples(50)
def test_places_in_a_turn(question: str, length: int) -> None:
    tokenizer = tokenizer_of("chatml")
    opening, closing = CHATML_TURN
    pieces = (opening, question, f"\n{INSTRUCTION}", closing)
    plain = tokenizer("".join(pieces)).input_ids
    tail = tokenizer(closing).input_ids
    suffix = place_in_turn(tokenizer, *pieces, length, "suffix")
    assert without(suffix, length) == plain
    assert suffix.token_ids[suffix.start + length :] == tail
    prefix = place_in_turn(tokenizer, *pieces, length, "prefix")
    assert (prefix.start, prefix.token_ids[length:]) == (0, plain)
    infix = place_in_turn(tokenizer, *pieces, 20, "infix")
    before, after = before_and_after(tokenizer, infix, 20)
    assert before.endswith(f"\n{DESCRIPTION}")
    assert after == f"\n{INSTRUCTION}{closing}"
    described = "".join((before.removesuffix(f"\n{DESCRIPTION}"), after))
    assert described == tokenizer.decode(plain, skip_special_tokens=False)


def test_turn_of_a_template_without_turns_ends_with_the_suffix() -> None:
    tokenizer = tokenizer_of("llama_3")
    pieces = ("Question:\n", QUESTION, "\nAnswer:\n", "")
    plain = tokenizer("".join(pieces)).input_ids
    assert plain[0] == tokenizer.bos_token_id
    suffix = place_in_turn(tokenizer, *pieces, 20, "suffix")
    assert (suffix.start, without(suffix, 20)) == (len(plain), plain)
    prefix = place_in_turn(tokenizer, *pieces, 20, "prefix")
    assert (prefix.start, prefix.token_ids[20:]) == (0, plain)
    infix = place_in_turn(tokenizer, *pieces, 20, "infix")
    assert before_and_after(tokenizer, infix, 20) == (
        f"<|begin_of_text|>Question:\n{QUESTION}\n{DESCRIPTION}",
        "\nAnswer:\n",
    )


def test_a_turn_that_brings_its_own_bos_keeps_one() -> None:
    tokenizer = tokenizer_of("llama_3")
    opening = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    placed = place_in_turn(tokenizer, opening, QUESTION, "", "<|eot_id|>", 3)
    assert placed.token_ids.count(tokenizer.bos_token_id) == 1
    assert without(placed, 3) == plain_ids(tokenizer, asked(QUESTION))[: placed.start + 1]


def test_turn_closed_by_ordinary_text_has_no_suffix() -> None:
    tokenizer = tokenizer_of("llama_3")  # knows no <|im_end|>
    opening, closing = CHATML_TURN
    with pytest.raises(PlacementError, match=r"no end-of-turn token .*<\|im_end\|>"):
        place_in_turn(tokenizer, opening, QUESTION, "", closing, 3, "suffix")
    placed = place_in_turn(tokenizer, opening, QUESTION, "", closing, 3, "prefix")
    assert placed.token_ids[3:] == tokenizer(f"{opening}{QUESTION}{closing}").input_ids
