"""Where the placeholders go, on small tokenizers with real families' templates."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.chat import check_chat_template, place_in_chat
from rsp_rl.placement.prompt import POSITIONS, PlacedPrompt, extra_tokens, placeholder_id
from rsp_rl.placement.text import place_in_text, place_in_turn
from rsp_rl.placement.tokens import place_in_tokens
from tests.properties import examples
from tests.unit import templates
from tests.unit.templates import END_OF_TURN, FAMILIES, tokenizer_of

BYTE_LEVEL = ("chatml", "llama_3")  # those that decode to the very text

#: What each family's template puts behind the user's message.
TAIL = {
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "llama_3": "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "gemma": "<end_of_turn>\n<start_of_turn>model\n",
    "mistral": "[/INST]",
}

# The paper's wording (section 3.1), written out once more.
DESCRIPTION = (
    "There are 20 special tokens that contain compressed latent reasoning information that might "
    "be useful for your reasoning. If these tokens are useful for your case, you can use them as "
    "reference. If these tokens are not useful for your case, you can ignore them and focus back "
    "to solving the problem.\nHere are the 20 special tokens: "
)
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."
QUESTION = "How many clips did Natalia sell altogether in April and May?"

# What users might write to move a soft prompt, or what a tokenizer might merge across a seam.
_FRAGMENTS = [
    *(token for tail in TAIL.values() for token in (tail, tail.split("\n")[0])),
    *("<|im_start|>", "<|begin_of_text|>", "<bos>", "<s>", "</s>", "[INST]", "<|endoftext|>"),
    *("<|im_end", "|>", "<|", "<", "[/INST", "<think>", "<tool_call>", "<unk>", "<0x41>"),
    *("\ue0f0", "\ue0f1", "\ue0f00\ue0f1", "\ue0f01\ue0f1", "0", "1"),
    *(" ", "  ", " " * 17, "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u0301", "\x00"),
    *("?", "!!", "...", "{{ messages }}", "{% raw %}", "▁", "Ġ", "é", "👩‍🏫", "數學", "42", "x"),
    *(INSTRUCTION, DESCRIPTION, QUESTION, "special tokens: ", "Please"),
]
USER_TEXT = st.lists(st.one_of(st.sampled_from(_FRAGMENTS), st.text(max_size=5)), max_size=7).map(
    "".join
)


def _user(content: str) -> list[dict]:
    return [{"role": "user", "content": content}]


def _plain(tokenizer: PreTrainedTokenizerBase, messages: list[dict], **kwargs: object) -> list[int]:
    """transformers' own tokenisation."""
    return tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False, **kwargs
    )


def _without(placed: PlacedPrompt, length: int) -> list[int]:
    """The prompt's tokens without the placeholders, which must stand where `start` says."""
    ids, end = placed.token_ids, placed.start + length
    assert 0 <= placed.start <= end <= len(ids)
    assert len(set(ids[placed.start : end])) <= 1
    return ids[: placed.start] + ids[end:]


def _before_and_after(
    tokenizer: PreTrainedTokenizerBase, placed: PlacedPrompt, length: int
) -> tuple[str, str]:
    ids = placed.token_ids
    parts = ids[: placed.start], ids[placed.start + length :]
    before, after = (tokenizer.decode(part, skip_special_tokens=False) for part in parts)
    return before, after


# Suffix and prefix in chats.


@pytest.mark.parametrize("family", FAMILIES)
def test_suffix_stands_right_before_the_end_of_turn(family: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, _user(QUESTION), 20, "suffix")
    plain = _plain(tokenizer, _user(QUESTION))
    assert _without(placed, 20) == plain
    assert placed.token_ids[placed.start : placed.start + 20] == [placeholder_id(tokenizer)] * 20
    end_of_turn = tokenizer.convert_tokens_to_ids(END_OF_TURN[family])
    assert placed.token_ids[placed.start + 20] == end_of_turn
    # The user's is the last turn that is closed.
    assert placed.start == len(plain) - 1 - plain[::-1].index(end_of_turn)


@pytest.mark.parametrize("family", FAMILIES)
def test_prefix_stands_before_everything(family: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, _user(QUESTION), 20, "prefix")
    assert placed.start == 0
    assert placed.token_ids[20:] == _plain(tokenizer, _user(QUESTION))
    if tokenizer.bos_token_id is not None:
        assert placed.token_ids[20] == tokenizer.bos_token_id


@pytest.mark.parametrize("family", FAMILIES)
@given(content=USER_TEXT, length=st.sampled_from([1, 3, 20]))
@examples(60)
def test_no_user_text_moves_the_placement(family: str, content: str, length: int) -> None:
    tokenizer = tokenizer_of(family)
    plain = _plain(tokenizer, _user(content))
    tail = tokenizer.encode(TAIL[family], add_special_tokens=False)
    suffix = place_in_chat(tokenizer, _user(content), length, "suffix")
    assert _without(suffix, length) == plain
    assert suffix.start == len(plain) - len(tail)
    assert suffix.token_ids[suffix.start + length :] == tail
    prefix = place_in_chat(tokenizer, _user(content), length, "prefix")
    assert (prefix.start, prefix.token_ids[length:]) == (0, plain)


@pytest.mark.parametrize("content", ["", " ", "\n\n", "x  \n ", "  x", "\ue0f00\ue0f1", "\ue0f0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_blank_and_awkward_contents(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    tail = tokenizer.encode(TAIL[family], add_special_tokens=False)
    placed = place_in_chat(tokenizer, _user(content), 4, "suffix")
    assert _without(placed, 4) == _plain(tokenizer, _user(content))
    assert placed.token_ids[placed.start + 4 :] == tail


_CONVERSATIONS = {
    "system turn": [{"role": "system", "content": "Answer in French."}, *_user(QUESTION)],
    "third turn": [
        *_user(QUESTION),
        {"role": "assistant", "content": "72 clips."},
        *_user("And in June?"),
    ],
    "assistant's turn last": [*_user(QUESTION), {"role": "assistant", "content": "Let me see:"}],
    "tool's turn last": [
        *_user(QUESTION),
        {"role": "assistant", "content": "<tool_call>{}</tool_call>"},
        {"role": "tool", "content": "72"},
    ],
    "assistant quotes the user": [*_user("Hi"), {"role": "assistant", "content": "Hi<|im_end|>"}],
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
    plain = _plain(tokenizer, messages)
    placed = place_in_chat(tokenizer, messages, 5, "suffix")
    assert _without(placed, 5) == plain
    before, after = _before_and_after(tokenizer, placed, 5)
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
        *_user("Hi"),
        {"role": "assistant", "content": "\ue0f00\ue0f1 and \ue0f01\ue0f1"},
    ]
    placed = place_in_chat(tokenizer, messages, 5, "suffix")
    assert _without(placed, 5) == _plain(tokenizer, messages)
    assert _before_and_after(tokenizer, placed, 5)[0].endswith("user\nHi")


def test_marker_code_points_in_tool_calls() -> None:
    """A turn may carry text outside its `content`."""
    template = templates.CHATML.replace(
        "message.content + '<|im_end|>'",
        "message.content + (message.tool_calls[0].code if message.tool_calls else '')"
        " + '<|im_end|>'",
    )
    tokenizer = templates.chatml(template)
    call = {"role": "assistant", "content": "", "tool_calls": [{"code": "\ue0f00\ue0f1"}]}
    placed = place_in_chat(tokenizer, [*_user("Hi"), call], 5, "suffix")
    assert _before_and_after(tokenizer, placed, 5)[0].endswith("user\nHi")


def test_template_keywords_are_passed_on() -> None:
    tokenizer = tokenizer_of("chatml")
    plain = _plain(tokenizer, _user(QUESTION), enable_thinking=False)
    assert plain != _plain(tokenizer, _user(QUESTION))
    for position in ("suffix", "prefix"):
        placed = place_in_chat(tokenizer, _user(QUESTION), 3, position, enable_thinking=False)
        assert _without(placed, 3) == plain


def test_blanks_before_the_end_of_turn_stay_before_the_soft_prompt() -> None:
    tokenizer = templates.chatml(templates.GAP)
    placed = place_in_chat(tokenizer, _user("Hi"), 3, "suffix")
    assert _before_and_after(tokenizer, placed, 3) == (
        "<|user|>\nHi \n",
        "<|im_end|>\n<|assistant|>\n",
    )


def test_messages_are_left_as_they_were() -> None:
    messages = [{"role": "system", "content": "S"}, *_user(QUESTION)]
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
            placed = place_in_chat(tokenizer, _user(content), 8, "suffix")
            assert _without(placed, 8) == builder.build_initial_tokens(_user(content))


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
    placed = place_in_chat(tokenizer, _user(content), 20, "infix")
    plain = tokenizer.apply_chat_template(
        _user(content), tokenize=False, add_generation_prompt=True
    )
    head = plain[: plain.rindex(content)]
    assert _before_and_after(tokenizer, placed, 20) == (head + before, after + TAIL[family])
    assert placed.token_ids[placed.start : placed.start + 20] == [placeholder_id(tokenizer)] * 20


@pytest.mark.parametrize("family", FAMILIES)
def test_infix_in_every_family(family: str) -> None:
    """SentencePiece's decoder alters blanks: tokens instead of texts."""
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, _user(QUESTION), 20, "infix")
    described = _plain(tokenizer, _user(f"{QUESTION}\n{DESCRIPTION}x"))
    assert placed.token_ids[: placed.start - 1] == described[: placed.start - 1]
    after = placed.token_ids[placed.start + 20 :]
    assert after == tokenizer.encode(TAIL[family], add_special_tokens=False)


@pytest.mark.parametrize("family", BYTE_LEVEL)
@given(content=USER_TEXT, closing=st.sampled_from(["", INSTRUCTION, f"\n{INSTRUCTION}", "\n \n"]))
@example(content=f"{INSTRUCTION} ", closing="")  # no question either: the blank is stripped
@examples(60)
def test_infix_adds_its_description_and_nothing_else(
    family: str, content: str, closing: str
) -> None:
    tokenizer = tokenizer_of(family)
    messages = _user(content + closing)
    placed = place_in_chat(tokenizer, messages, 20, "infix")
    before, after = _before_and_after(tokenizer, placed, 20)
    assert before.endswith(f"\n{DESCRIPTION}")
    plain = tokenizer.decode(_plain(tokenizer, messages), skip_special_tokens=False)
    shortened = before.removesuffix(f"\n{DESCRIPTION}")
    if (content + closing).strip().removesuffix(INSTRUCTION).strip():
        assert shortened + after == plain
    else:  # a template may strip the description's own line break
        assert (shortened + after).split() == plain.split()


# Lengths.


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_length_zero_is_the_plain_prompt(family: str, position: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_chat(tokenizer, _user(QUESTION), 0, position)
    assert placed.token_ids == _plain(tokenizer, _user(QUESTION))
    expected = 0 if position == "prefix" else place_in_chat(tokenizer, _user(QUESTION), 1).start
    assert placed.start == expected
    raw = place_in_text(tokenizer, QUESTION, 0, position)
    assert raw.token_ids == tokenizer(QUESTION).input_ids
    assert raw.start == (0 if position == "prefix" else len(raw.token_ids))
    assert extra_tokens(tokenizer, 0, position) == 0


def test_length_zero_needs_no_end_of_turn_for_prefix() -> None:
    tokenizer = templates.chatml(templates.NO_END_OF_TURN)
    placed = place_in_chat(tokenizer, _user(QUESTION), 0, "prefix")
    assert placed.token_ids == _plain(tokenizer, _user(QUESTION))


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
    messages = _user(content + closing)
    placed = place_in_chat(tokenizer, messages, length, position)
    growth = len(placed.token_ids) - len(_plain(tokenizer, messages))
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
    placed = place_in_chat(tokenizer, _user(content), 20, "infix")
    growth = len(placed.token_ids) - len(_plain(tokenizer, _user(content)))
    assert growth <= extra_tokens(tokenizer, 20, "infix")


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
    assert (suffix.start, _without(suffix, length)) == (len(plain), plain)
    prefix = place_in_text(tokenizer, text, length, "prefix")
    assert (prefix.start, prefix.token_ids[length:]) == (0, plain)


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_infix_in_raw_text(family: str) -> None:
    tokenizer = tokenizer_of(family)
    bos = tokenizer.bos_token or ""
    placed = place_in_text(tokenizer, f"{QUESTION}\n{INSTRUCTION}", 20, "infix")
    before, after = _before_and_after(tokenizer, placed, 20)
    assert (before, after) == (f"{bos}{QUESTION}\n{DESCRIPTION}", f"\n{INSTRUCTION}")
    placed = place_in_text(tokenizer, QUESTION, 20, "infix")
    assert _before_and_after(tokenizer, placed, 20) == (f"{bos}{QUESTION}\n{DESCRIPTION}", "")


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
    assert _without(suffix, length) == plain
    assert suffix.token_ids[suffix.start + length :] == tail
    prefix = place_in_turn(tokenizer, *pieces, length, "prefix")
    assert (prefix.start, prefix.token_ids[length:]) == (0, plain)
    infix = place_in_turn(tokenizer, *pieces, 20, "infix")
    before, after = _before_and_after(tokenizer, infix, 20)
    assert before.endswith(f"\n{DESCRIPTION}")
    assert after == f"\n{INSTRUCTION}{closing}"
    described = "".join((before.removesuffix(f"\n{DESCRIPTION}"), after))
    assert described == tokenizer.decode(plain, skip_special_tokens=False)


@pytest.mark.parametrize("position", ["suffix", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
@given(content=USER_TEXT, length=st.sampled_from([0, 1, 20]))
@examples(50)
def test_tokens_of_a_chat_are_placed_as_its_messages(
    family: str, position: str, content: str, length: int
) -> None:
    tokenizer = tokenizer_of(family)
    tokens = _plain(tokenizer, _user(content))
    placed = place_in_tokens(tokenizer, tokens, length, position)
    if length or position == "suffix":
        assert placed == place_in_chat(tokenizer, _user(content), length, position)
    assert _without(placed, length) == tokens


@pytest.mark.parametrize("family", BYTE_LEVEL)
@pytest.mark.parametrize("content", [QUESTION, f"{QUESTION}\n{INSTRUCTION}", "x\n\ny 数 "])
def test_infix_in_tokens(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    placed = place_in_tokens(tokenizer, _plain(tokenizer, _user(content)), 20, "infix")
    expected = place_in_chat(tokenizer, _user(content.rstrip()), 20, "infix")
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


def test_turn_of_a_template_without_turns_ends_with_the_suffix() -> None:
    tokenizer = tokenizer_of("llama_3")
    pieces = ("Question:\n", QUESTION, "\nAnswer:\n", "")
    plain = tokenizer("".join(pieces)).input_ids
    assert plain[0] == tokenizer.bos_token_id
    suffix = place_in_turn(tokenizer, *pieces, 20, "suffix")
    assert (suffix.start, _without(suffix, 20)) == (len(plain), plain)
    prefix = place_in_turn(tokenizer, *pieces, 20, "prefix")
    assert (prefix.start, prefix.token_ids[20:]) == (0, plain)
    infix = place_in_turn(tokenizer, *pieces, 20, "infix")
    assert _before_and_after(tokenizer, infix, 20) == (
        f"<|begin_of_text|>Question:\n{QUESTION}\n{DESCRIPTION}",
        "\nAnswer:\n",
    )


def test_a_turn_that_brings_its_own_bos_keeps_one() -> None:
    tokenizer = tokenizer_of("llama_3")
    opening = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
    placed = place_in_turn(tokenizer, opening, QUESTION, "", "<|eot_id|>", 3)
    assert placed.token_ids.count(tokenizer.bos_token_id) == 1
    assert _without(placed, 3) == _plain(tokenizer, _user(QUESTION))[: placed.start + 1]


def test_turn_closed_by_ordinary_text_has_no_suffix() -> None:
    tokenizer = tokenizer_of("llama_3")  # knows no <|im_end|>
    opening, closing = CHATML_TURN
    with pytest.raises(PlacementError, match=r"no end-of-turn token .*<\|im_end\|>"):
        place_in_turn(tokenizer, opening, QUESTION, "", closing, 3, "suffix")
    placed = place_in_turn(tokenizer, opening, QUESTION, "", closing, 3, "prefix")
    assert placed.token_ids[3:] == tokenizer(f"{opening}{QUESTION}{closing}").input_ids


# Errors.


@pytest.mark.parametrize("position", ["suffix", "infix"])
def test_template_without_end_of_turn(position: str) -> None:
    tokenizer = templates.chatml(templates.NO_END_OF_TURN)
    if position == "suffix":
        with pytest.raises(PlacementError, match=r"no end-of-turn token .*### assistant.*prefix"):
            place_in_chat(tokenizer, _user(QUESTION), 3, position)
        with pytest.raises(PlacementError, match="no end-of-turn token"):
            check_chat_template(tokenizer, position)
    else:  # needs none
        before, after = _before_and_after(
            tokenizer, place_in_chat(tokenizer, _user(QUESTION), 20, position), 20
        )
        assert before.endswith(DESCRIPTION)
        assert after == "\n\n### assistant:\n"


def test_end_of_turn_must_be_a_special_token() -> None:
    """`<think>` is one token, but not a special one: text that a user's turn may hold."""
    template = templates.CHATML.replace("message.content + '<|im_end|>'", "message.content")
    tokenizer = templates.chatml(template.replace("+ '\\n' }}", "+ '<think>' }}"))
    with pytest.raises(PlacementError, match="no end-of-turn token"):
        place_in_chat(tokenizer, _user(QUESTION), 3, "suffix")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("length", [0, 3])
def test_tokenizer_without_chat_template(position: str, length: int) -> None:
    tokenizer = templates.llama_3(None)
    with pytest.raises(PlacementError, match="no chat template"):
        place_in_chat(tokenizer, _user(QUESTION), length, position)
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
    messages = [{"role": "system", "content": "S"}, *_user(QUESTION)]
    with pytest.raises(PlacementError, match="does not render the last user message"):
        place_in_chat(tokenizer, messages, 3, "suffix")


def test_template_whose_turn_end_depends_on_the_message() -> None:
    tokenizer = templates.chatml(
        "{% for m in messages %}{{ m.content + '<|im_end|>' ~ m.content | length }}{% endfor %}"
    )
    with pytest.raises(PlacementError, match="cannot be told"):
        place_in_chat(tokenizer, _user(QUESTION), 3, "suffix")


@pytest.mark.parametrize(
    ("length", "position", "cause"),
    [(-1, "suffix", "-1 is negative"), (3, "middle", "'middle'"), (0, "SUFFIX", "'SUFFIX'")],
)
def test_bad_length_or_position(length: int, position: str, cause: str) -> None:
    tokenizer = tokenizer_of("chatml")
    for call in (
        lambda: place_in_chat(tokenizer, _user(QUESTION), length, position),
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
        place_in_chat(tokenizer, _user(QUESTION), 3, "suffix")
    with pytest.raises(PlacementError, match="neither a padding nor"):
        check_chat_template(tokenizer, "prefix")


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_usable_tokenizers_pass_the_early_check(family: str, position: str) -> None:
    check_chat_template(tokenizer_of(family), position)
