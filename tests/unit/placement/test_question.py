"""Which tokens of a plain prompt are the user's message, in chats and in literal templates."""

from __future__ import annotations

import pytest
from hypothesis import given
from transformers import PreTrainedTokenizerBase

from rsp_rl.basics.errors import PlacementError
from rsp_rl.data.templates import TEMPLATES, TextTemplate
from rsp_rl.placement.chat import question_in_chat
from rsp_rl.placement.prompt import PlacedPrompt, added_tokens
from rsp_rl.placement.text import question_in_turn
from tests.properties import examples
from tests.unit.placement.prompts import (
    BYTE_LEVEL,
    INSTRUCTION,
    QUESTION,
    USER_TEXT,
    asked,
    plain_ids,
)
from tests.unit.templates import FAMILIES, tokenizer_of


def text_of(tokenizer: PreTrainedTokenizerBase, found: PlacedPrompt) -> str:
    return tokenizer.decode(
        found.span, skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize(
    "content", [QUESTION, f"{QUESTION}\n{INSTRUCTION}", "  How many?\n\n", "x"]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_span_is_the_message_and_the_prompt_stays_as_it_is(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    found = question_in_chat(tokenizer, asked(content))
    assert found.token_ids == plain_ids(tokenizer, asked(content))
    assert text_of(tokenizer, found).strip() == content.strip()
    assert 0 < found.start < found.start + found.length < len(found.token_ids)
    # Nothing of the template's is in it.
    own = {tokenizer.convert_tokens_to_ids(token) for token in added_tokens(tokenizer)}
    assert not own & set(found.span)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_conversation_it_is_the_last_message_of_the_user(family: str) -> None:
    tokenizer = tokenizer_of(family)
    messages = [*asked("How many?"), {"role": "assistant", "content": "4"}, *asked("How many?")]
    found = question_in_chat(tokenizer, messages)
    assert found.token_ids == plain_ids(tokenizer, messages)
    first = question_in_chat(tokenizer, messages[:1])
    assert text_of(tokenizer, found).strip() == "How many?"
    assert found.start > first.start + first.length


def test_turns_that_follow_and_a_system_turn_are_no_part_of_it() -> None:
    tokenizer = tokenizer_of("chatml")
    system = {"role": "system", "content": "How many?"}
    tool = {"role": "tool", "content": "How many?"}
    messages = [system, *asked("How many?"), {"role": "assistant", "content": "?"}, tool]
    found = question_in_chat(tokenizer, messages, enable_thinking=False)
    assert found.token_ids == plain_ids(tokenizer, messages, enable_thinking=False)
    before = tokenizer.decode(found.token_ids[: found.start])
    assert before.endswith("<|im_start|>user\n")
    assert text_of(tokenizer, found) == "How many?"


@pytest.mark.parametrize("family", FAMILIES)
@given(content=USER_TEXT)
@examples(80)
def test_whatever_the_user_wrote_is_found_or_refused(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    try:
        found = question_in_chat(tokenizer, asked(content))
    except PlacementError:
        assert not content.strip()
        return
    assert found.token_ids == plain_ids(tokenizer, asked(content))
    assert found.length > 0
    if family in BYTE_LEVEL:
        assert text_of(tokenizer, found).strip() == content.strip()


@pytest.mark.parametrize("content", ["", " ", "\n\n"])
def test_an_empty_message_has_no_tokens(content: str) -> None:
    with pytest.raises(PlacementError, match="the user's message is empty"):
        question_in_chat(tokenizer_of("chatml"), asked(content))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] | upper }}<|im_end|>", "changes the user's message"),
        ("{{ messages[0]['content'] }}, {{ messages[0]['content'] }}", "changes the user's"),
        ("<|im_start|>", "does not render the last user message"),
        (
            "{{ 'Q: ' if messages[0]['content'][0] == 'H' else '' }}{{ messages[0]['content'] }}",
            "differently when the message changes",
        ),
    ],
)
def test_templates_that_hide_the_message(template: str, message: str) -> None:
    with pytest.raises(PlacementError, match=message):
        question_in_chat(tokenizer_of("chatml"), asked(QUESTION), chat_template=template)


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_finds_its_users_turn(name: str) -> None:
    template, tokenizer = TEMPLATES[name], tokenizer_of("chatml")
    found = template.find_question(tokenizer, QUESTION)
    assert found.token_ids == template.place(tokenizer, QUESTION).token_ids
    text = text_of(tokenizer, found).strip()
    opens_the_answer = name in ("abel", "soft-tokens")
    assert text == f"{QUESTION}{'' if opens_the_answer else template.instruction}".strip()


def test_bos_stands_in_front_of_literal_templates() -> None:
    tokenizer = tokenizer_of("llama_3")
    template = TextTemplate("Question: ", "", "\nAnswer:")
    found = template.find_question(tokenizer, QUESTION)
    assert found.token_ids == template.place(tokenizer, QUESTION).token_ids
    assert found.token_ids[0] == tokenizer.bos_token_id
    assert text_of(tokenizer, found).strip() == QUESTION


def test_a_token_of_message_and_template_is_refused() -> None:
    tokenizer = tokenizer_of("chatml")
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and word.isascii()]
    word = max(words, key=len)
    assert len(tokenizer.encode(word)) == 1 < len(word)
    with pytest.raises(PlacementError, match=r"fuses the user's message .* line break"):
        question_in_turn(tokenizer, word[:1], word[1:], "", "<|im_end|>")
    with pytest.raises(PlacementError, match="fuses the user's message"):
        question_in_turn(tokenizer, "", word[:1], "", word[1:])
    question_in_turn(tokenizer, "", word, "", "<|im_end|>")
