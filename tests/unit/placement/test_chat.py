"""Where the placeholders go in chats, on small tokenizers with real families' templates."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.chat import check_chat_template, place_in_chat
from rsp_rl.placement.prompt import POSITIONS, placeholder_id
from rsp_rl.placement.text import place_in_text
from tests.properties import examples
from tests.unit import templates
from tests.unit.placement.prompts import (
    BYTE_LEVEL,
    DESCRIPTION,
    INSTRUCTION,
    QUESTION,
    TAIL,
    USER_TEXT,
    asked,
    before_and_after,
    plain_ids,
    without,
)
from tests.unit.templates import END_OF_TURN, FAMILIES, tokenizer_of

# Suffix and prefix.


@pytest.mark.parametrize("family", FAMILIES)
def test_suffix_stands_right_before_the_end_of_turn(family: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, asked(QUESTION), 20, "suffix")
    plain = plain_ids(tokenizer, asked(QUESTION))
    assert without(placed, 20) == plain
    assert placed.token_ids[placed.start : placed.start + 20] == [placeholder_id(tokenizer)] * 20
    end_of_turn = tokenizer.convert_tokens_to_ids(END_OF_TURN[family])
    assert placed.token_ids[placed.start + 20] == end_of_turn
    # The user's is the last turn that is closed.
    assert placed.start == len(plain) - 1 - plain[::-1].index(end_of_turn)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_stands_before_everything(family: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, asked(QUESTION), 20, "prefix")
    assert placed.start == 0
    assert placed.token_ids[20:] == plain_ids(tokenizer, asked(QUESTION))
    if tokenizer.bos_token_id is not None:
        assert placed.token_ids[20] == tokenizer.bos_token_id


@pytest.mark.parametrize("family", FAMILIES)
@given(content=USER_TEXT, length=st.sampled_from([1, 3, 20]))
@examples(60)
def test_no_user_text_moves_the_placement(family: str, content: str, length: int) -> None:
    tokenizer = tokenizer_of(family)
    plain = plain_ids(tokenizer, asked(content))
    tail = tokenizer.encode(TAIL[family], add_special_tokens=False)
    suffix = place_in_chat(tokenizer, asked(content), length, "suffix")
    assert without(suffix, length) == plain
    assert suffix.start == len(plain) - len(tail)
    assert suffix.token_ids[suffix.start + length :] == tail
    prefix = place_in_chat(tokenizer, asked(content), length, "prefix")
    assert (prefix.start, prefix.token_ids[length:]) == (0, plain)


@pytest.mark.parametrize("content", ["", " ", "\n\n", "x  \n ", "  x", "\ue0f00\ue0f1", "\ue0f0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_blank_and_awkward_contents(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    tail = tokenizer.encode(TAIL[family], add_special_tokens=False)
    placed = place_in_chat(tokenizer, asked(content), 4, "suffix")
    assert without(placed, 4) == plain_ids(tokenizer, asked(content))
    assert placed.token_ids[placed.start + 4 :] == tail


_CONVERSATIONS = {
    "system turn": [{"role": "system", "content": "Answer in French."}, *asked(QUESTION)],
    "third turn": [
        *asked(QUESTION),
        {"role": "assistant", "content": "72 clips."},
        *asked("And in June?"),
    ],
    "assistant's turn last": [*asked(QUESTION), {"role": "assistant", "content": "Let me see:"}],
    "tool's turn last": [
        *asked(QUESTION),
        {"role": "assistant", "content": "<tool_call>{}</tool_call>"},
        {"role": "tool", "content": "72"},
    ],
    "assistant quotes the user": [*asked("Hi"), {"role": "assistant", "content": "Hi<|im_end|>"}],
}

_REFUSED = {  # by the family's own template
    ("gemma", "system turn"),
    ("gemma", "tool's turn last"),
    ("mistral", "tool's turn last"),
}


@pytest.mark.parametrize(
    ("family", "conversation"),
    [
        (family, conversation)
        for family in FAMILIES
        for conversation in _CONVERSATIONS
        if (family, conversation) not in _REFUSED
    ],
)
def test_last_user_turn_of_a_conversation(family: str, conversation: str) -> None:
    tokenizer, messages = tokenizer_of(family), _CONVERSATIONS[conversation]
    plain = plain_ids(tokenizer, messages)
    placed = place_in_chat(tokenizer, messages, 5, "suffix")
    assert without(placed, 5) == plain
    before, after = before_and_after(tokenizer, placed, 5)
    assert after.lstrip().startswith(END_OF_TURN[family])
    users = [number for number, message in enumerate(messages) if message["role"] == "user"]
    later, end_of_turn = messages[users[-1] + 1 :], END_OF_TURN[family]
    quoted = sum(message["content"].count(end_of_turn) for message in later)
    closed = 1 if family == "mistral" else 1 + len(later)  # [/INST] closes users' turns only
    assert after.count(end_of_turn) == closed + quoted
    last_user = messages[users[-1]]["content"]
    if family in BYTE_LEVEL:  # the others' decoders alter blanks
        assert before.endswith(last_user)
        assert all(message["content"] in after for message in later)
    assert place_in_chat(tokenizer, messages, 5, "prefix").token_ids[5:] == plain


def test_marker_code_points_in_other_turns() -> None:
    tokenizer = tokenizer_of("chatml")
    messages = [
        {"role": "system", "content": "\ue0f00\ue0f1"},
        *asked("Hi"),
        {"role": "assistant", "content": "\ue0f00\ue0f1 and \ue0f01\ue0f1"},
    ]
    placed = place_in_chat(tokenizer, messages, 5, "suffix")
    assert without(placed, 5) == plain_ids(tokenizer, messages)
    assert before_and_after(tokenizer, placed, 5)[0].endswith("user\nHi")


def test_marker_code_points_in_tool_calls() -> None:
    """A turn may carry text outside its `content`."""
    template = templates.CHATML.replace(
        "message.content + '<|im_end|>'",
        "message.content + (message.tool_calls[0].code if message.tool_calls else '')"
        " + '<|im_end|>'",
    )
    tokenizer = templates.chatml(template)
    call = {"role": "assistant", "content": "", "tool_calls": [{"code": "\ue0f00\ue0f1"}]}
    placed = place_in_chat(tokenizer, [*asked("Hi"), call], 5, "suffix")
    assert before_and_after(tokenizer, placed, 5)[0].endswith("user\nHi")


def test_template_keywords_are_passed_on() -> None:
    tokenizer = tokenizer_of("chatml")
    plain = plain_ids(tokenizer, asked(QUESTION), enable_thinking=False)
    assert plain != plain_ids(tokenizer, asked(QUESTION))
    for position in ("suffix", "prefix"):
        placed = place_in_chat(tokenizer, asked(QUESTION), 3, position, enable_thinking=False)
        assert without(placed, 3) == plain


def test_blanks_before_the_end_of_turn_stay_before_the_soft_prompt() -> None:
    tokenizer = templates.chatml(templates.GAP)
    placed = place_in_chat(tokenizer, asked("Hi"), 3, "suffix")
    assert before_and_after(tokenizer, placed, 3) == (
        "<|user|>\nHi \n",
        "<|im_end|>\n<|assistant|>\n",
    )


def test_messages_are_left_as_they_were() -> None:
    messages = [{"role": "system", "content": "S"}, *asked(QUESTION)]
    copy = [dict(message) for message in messages]
    for position in POSITIONS:
        place_in_chat(tokenizer_of("chatml"), messages, 3, position)
    assert messages == copy


def test_plain_tokens_are_those_of_verls_own_builder() -> None:
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    for family in ("chatml", "llama_3"):
        tokenizer = tokenizer_of(family)
        builder = create_continuous_token_builder(tokenizer)
        for content in (QUESTION, "x <|im_end|> ", ""):
            placed = place_in_chat(tokenizer, asked(content), 8, "suffix")
            assert without(placed, 8) == builder.build_initial_tokens(asked(content))


def test_length_zero_needs_no_end_of_turn_for_prefix() -> None:
    tokenizer = templates.chatml(templates.NO_END_OF_TURN)
    placed = place_in_chat(tokenizer, asked(QUESTION), 0, "prefix")
    assert placed.token_ids == plain_ids(tokenizer, asked(QUESTION))


# Infix.


@pytest.mark.parametrize(
    ("content", "before", "after"),
    [
        (QUESTION, f"{QUESTION}\n{DESCRIPTION}", ""),
        (f"{QUESTION}\n{INSTRUCTION}", f"{QUESTION}\n{DESCRIPTION}", f"\n{INSTRUCTION}"),
        (f"{QUESTION} {INSTRUCTION}", f"{QUESTION}\n{DESCRIPTION}", f" {INSTRUCTION}"),
        (f"{QUESTION}{INSTRUCTION}", f"{QUESTION}\n{DESCRIPTION}", INSTRUCTION),
        # Only a closing instruction counts.
        (f"{INSTRUCTION} {QUESTION}", f"{INSTRUCTION} {QUESTION}\n{DESCRIPTION}", ""),
        (
            f"{INSTRUCTION}\n{QUESTION}\n\n{INSTRUCTION}",
            f"{INSTRUCTION}\n{QUESTION}\n{DESCRIPTION}",
            f"\n\n{INSTRUCTION}",
        ),
        ("Hi<|im_end|>", f"Hi<|im_end|>\n{DESCRIPTION}", ""),
    ],
)
@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_infix_is_the_papers_text_and_place(
    family: str, content: str, before: str, after: str
) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, asked(content), 20, "infix")
    plain = tokenizer.apply_chat_template(
        asked(content), tokenize=False, add_generation_prompt=True
    )
    head = plain[: plain.rindex(content)]
    assert before_and_after(tokenizer, placed, 20) == (head + before, after + TAIL[family])
    assert placed.token_ids[placed.start : placed.start + 20] == [placeholder_id(tokenizer)] * 20


@pytest.mark.parametrize("family", FAMILIES)
def test_infix_in_every_family(family: str) -> None:
    """SentencePiece's decoder alters blanks: tokens instead of texts."""
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, asked(QUESTION), 20, "infix")
    described = plain_ids(tokenizer, asked(f"{QUESTION}\n{DESCRIPTION}x"))
    assert placed.token_ids[: placed.start - 1] == described[: placed.start - 1]
    after = placed.token_ids[placed.start + 20 :]
    assert after == tokenizer.encode(TAIL[family], add_special_tokens=False)


@pytest.mark.parametrize("family", BYTE_LEVEL)
@given(content=USER_TEXT, closing=st.sampled_from(["", INSTRUCTION, f"\n{INSTRUCTION}", "\n \n"]))
@example(content=INSTRUCTION, closing="\n \n")
@example(content=f"{INSTRUCTION} ", closing="")
@examples(60)
def test_infix_adds_its_description_and_nothing_else(
    family: str, content: str, closing: str
) -> None:
    tokenizer = tokenizer_of(family)
    messages = asked(content + closing)
    placed = place_in_chat(tokenizer, messages, 20, "infix")
    before, after = before_and_after(tokenizer, placed, 20)
    assert before.endswith(f"\n{DESCRIPTION}")
    plain = tokenizer.decode(plain_ids(tokenizer, messages), skip_special_tokens=False)
    shortened = before.removesuffix(f"\n{DESCRIPTION}")
    if (content + closing).strip().removesuffix(INSTRUCTION).strip():
        assert shortened + after == plain
    else:  # a template may strip the description's own line break
        assert (shortened + after).split() == plain.split()


# Errors.


def test_template_without_end_of_turn() -> None:
    tokenizer = templates.chatml(templates.BARE)
    with pytest.raises(PlacementError, match=r"no end-of-turn token .*prefix"):
        place_in_chat(tokenizer, asked(QUESTION), 3, "suffix")
    with pytest.raises(PlacementError, match="no end-of-turn token"):
        check_chat_template(tokenizer, "suffix")
    placed = place_in_chat(tokenizer, asked(QUESTION), 20, "infix")  # needs none
    before, after = before_and_after(tokenizer, placed, 20)
    assert before.endswith(DESCRIPTION)
    assert after == "\n"


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("length", [0, 3])
def test_tokenizer_without_chat_template(position: str, length: int) -> None:
    tokenizer = templates.llama_3(None)
    with pytest.raises(PlacementError, match="no chat template"):
        place_in_chat(tokenizer, asked(QUESTION), length, position)
    with pytest.raises(PlacementError, match="no chat template"):
        check_chat_template(tokenizer, position)
    assert len(place_in_text(tokenizer, QUESTION, 3, position).token_ids) > 3


@pytest.mark.parametrize(
    ("messages", "cause"),
    [
        ([], "no user message"),
        ([{"role": "system", "content": "S"}], "no user message"),
        ([{"role": "assistant", "content": "A"}], "no user message"),
        ([{"content": "A"}], "no user message"),
        ([{"role": "user", "content": [{"type": "text", "text": "Q"}]}], "not plain text"),
        ([{"role": "user", "content": None}], "not plain text"),
        ([{"role": "user"}], "not plain text"),
    ],
)
@pytest.mark.parametrize("position", ["suffix", "infix"])
def test_messages_without_a_place(messages: list[dict], cause: str, position: str) -> None:
    with pytest.raises(PlacementError, match=cause):
        place_in_chat(tokenizer_of("chatml"), messages, 3, position)


def test_template_that_leaves_the_user_out() -> None:
    tokenizer = templates.chatml(templates.SYSTEM_ONLY)
    messages = [{"role": "system", "content": "S"}, *asked(QUESTION)]
    with pytest.raises(PlacementError, match="does not render the last user message"):
        place_in_chat(tokenizer, messages, 3, "suffix")


def test_template_whose_turn_end_depends_on_the_message() -> None:
    tokenizer = templates.chatml(
        "{% for m in messages %}{{ m.content + '<|im_end|>' ~ m.content | length }}{% endfor %}"
    )
    with pytest.raises(PlacementError, match="cannot be told"):
        place_in_chat(tokenizer, asked(QUESTION), 3, "suffix")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_usable_tokenizers_pass_the_early_check(family: str, position: str) -> None:
    check_chat_template(tokenizer_of(family), position)
