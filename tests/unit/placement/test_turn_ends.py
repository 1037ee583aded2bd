"""Turns as real models end them, and conversations as servers get them: the same token, or none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
from hypothesis import given
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from rsp_rl.basics.errors import PlacementError
from rsp_rl.data.templates import get_template
from rsp_rl.placement.chat import answer_end, check_chat_template, place_in_chat
from rsp_rl.placement.prompt import PlacedPrompt, cut
from rsp_rl.placement.tokens import place_in_tokens
from tests.properties import examples
from tests.unit import templates
from tests.unit.placement.prompts import (
    QUESTION,
    USER_TEXT,
    asked,
    before_and_after,
    plain_ids,
    without,
)

# DeepSeek-R1's: turns opened by added tokens that are not special, the user's closed by nothing.
OPENED_ONLY = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '<|User|>' + message.content }}"
    "{% elif message.role == 'assistant' %}{{ '<|Assistant|>' + message.content + eos_token }}"
    "{% elif message.role == 'tool' %}{{ '<|tool|>' + message.content }}"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
# Llama-2's: text on either side, a blank within.
BRACKETS = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ bos_token + '[I] ' + message.content | trim + ' [/I]' }}"
    "{% elif message.role == 'assistant' %}{{ ' ' + message.content | trim + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}"
)
# OLMo-2's: turns opened by what looks like a token and is text.
HEADERS = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# GLM's: a word of the template's own at the end of the user's turn.
WORD = (
    "{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content }}"
    "{% if message.role == 'user' and no_thinking %}{{ '/nothink' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _with(
    template: str, special: list[str], ordinary: tuple[str, ...] = (), **strips: bool
) -> PreTrainedTokenizerFast:
    """Byte-level, with a BOS, a template and added tokens."""
    tokenizer = templates.llama_3(template)
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in ordinary])
    tokenizer.add_tokens(
        [AddedToken(t, special=True, normalized=False, **strips) for t in special],
        special_tokens=True,
    )
    return tokenizer


def _stripping() -> PreTrainedTokenizerFast:
    """Phi-4's: ChatML whose tokens swallow the blanks on either side."""
    tokens = ["<|im_start|>", "<|im_sep|>", "<|im_end|>"]
    template = (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '<|im_sep|>\n' + message.content + '\n<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant<|im_sep|>\n' }}{% endif %}"
    )
    return _with(template, tokens, lstrip=True, rstrip=True)


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "opened only": lambda: _with(
        OPENED_ONLY, [], ("<|User|>", "<|Assistant|>", "<|tool|>", "<think>")
    ),
    "brackets": lambda: _with(BRACKETS, []),
    "brackets, sentence pieces": lambda: templates.mistral(BRACKETS),
    "headers": lambda: _with(HEADERS, []),
    "word": lambda: _with(WORD, ["<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"]),
    "stripping": _stripping,
    **{family: partial(templates.tokenizer_of, family) for family in templates.FAMILIES},
}

SENTENCE_PIECES = ("gemma", "mistral", "brackets, sentence pieces")

#: What follows the soft prompt, the assistant's turn opened.
AFTER = {
    "opened only": "<|Assistant|><think>\n",
    "brackets": " [/I]",
    "headers": "<|assistant|>\n",
    "word": "<|assistant|>",
    "stripping": "<|im_end|><|im_start|>assistant<|im_sep|>",
}


@pytest.mark.parametrize("kind", AFTER)
def test_suffix_stands_where_the_users_turn_ends(kind: str) -> None:
    tokenizer = KINDS[kind]()
    placed = place_in_chat(tokenizer, asked(QUESTION), 5)
    assert without(placed, 5) == plain_ids(tokenizer, asked(QUESTION))
    before, after = before_and_after(tokenizer, placed, 5)
    assert after == AFTER[kind]
    assert before.rstrip().endswith(QUESTION)
    check_chat_template(tokenizer, "suffix")
    assert place_in_tokens(tokenizer, plain_ids(tokenizer, asked(QUESTION)), 5) == placed


def test_words_of_the_template_belong_to_the_users_turn() -> None:
    tokenizer = KINDS["word"]()
    placed = place_in_chat(tokenizer, asked(QUESTION), 5, no_thinking=True)
    before, after = before_and_after(tokenizer, placed, 5)
    assert before.endswith(f"{QUESTION}/nothink")
    assert after == "<|assistant|>"
    later = [*asked(QUESTION), {"role": "assistant", "content": "72"}]
    placed = place_in_chat(tokenizer, later, 5, no_thinking=True, add_generation_prompt=False)
    before, after = before_and_after(tokenizer, placed, 5)
    assert (before[-8:], after) == ("/nothink", "<|assistant|>\n72")


def test_text_that_fuses_with_the_message_is_refused_by_name() -> None:
    """`?` before `[/I]`, with no blank between them, is one token `?[/` of some tokenizers."""
    tokenizer = _with(BRACKETS.replace("' [/I]'", "'!![/I]'"), [])
    tokenizer.add_tokens([AddedToken("?!", normalized=False)])
    with pytest.raises(PlacementError, match=r"fuses the end of the user's turn.*May\?.*!!\[/I\]"):
        place_in_chat(tokenizer, asked(QUESTION), 5)
    assert place_in_chat(tokenizer, asked("Hi"), 5).start > 0


@pytest.mark.parametrize("content", ["", " ", "x  ", "  x", "\n\n", "x \n"])
@pytest.mark.parametrize("length", [0, 1, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_without_the_soft_prompt_it_is_the_plain_prompt(
    kind: str, length: int, content: str
) -> None:
    tokenizer = KINDS[kind]()
    placed = place_in_chat(tokenizer, asked(content), length)
    assert without(placed, length) == plain_ids(tokenizer, asked(content))
    assert placed.start == place_in_chat(tokenizer, asked(content), 0).start


@pytest.mark.parametrize("kind", AFTER)
@given(content=USER_TEXT)
@examples(40)
def test_no_user_text_moves_the_placement_or_it_is_refused(kind: str, content: str) -> None:
    tokenizer = _made(kind)
    plain = plain_ids(tokenizer, asked(content))
    try:
        placed = place_in_chat(tokenizer, asked(content), 5)
    except PlacementError as error:
        if "fuses the end" not in str(error):  # text that the tokenizer joins to text
            raise
        return
    assert without(placed, 5) == plain
    assert tokenizer.decode(placed.token_ids[placed.start + 5 :]) == AFTER[kind]


@cache
def _made(kind: str) -> PreTrainedTokenizerFast:
    return KINDS[kind]()


def test_a_tokenizer_that_knows_no_places_of_tokens() -> None:
    fast = templates.tokenizer_of("chatml")

    class Slow:
        is_fast = False
        encode = staticmethod(fast.encode)

    text = "Hi<|im_end|>"
    assert cut(Slow(), text, 2) == cut(fast, text, 2)
    with pytest.raises(PlacementError, match="fuses"):
        cut(Slow(), "special", 3)


CONVERSATIONS: dict[str, list[dict]] = {
    "question": asked(QUESTION),
    "system": [{"role": "system", "content": "Be brief."}, *asked(QUESTION)],
    "three turns": [*asked(QUESTION), {"role": "assistant", "content": "72."}, *asked("And May?")],
    "prefill": [*asked(QUESTION), {"role": "assistant", "content": "Let me see:"}],
    "tool": [
        *asked(QUESTION),
        {"role": "assistant", "content": "I ask."},
        {"role": "tool", "content": "72"},
    ],
    "system last": [*asked(QUESTION), {"role": "system", "content": "Be brief."}],
}

ARGUMENTS: dict[str, dict] = {
    "default": {},
    "no generation prompt": {"add_generation_prompt": False},
    "continued": {"add_generation_prompt": False, "continue_final_message": True},
    "no thinking": {"enable_thinking": False, "no_thinking": True},
}


def _placed(
    tokenizer: PreTrainedTokenizerFast, conversation: str, arguments: str
) -> PlacedPrompt | None:
    """As training and evaluation place it; None if they refuse."""
    try:
        return place_in_chat(tokenizer, CONVERSATIONS[conversation], 5, **ARGUMENTS[arguments])
    except PlacementError:
        return None


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_places_a_conversation_where_training_does_or_refuses(
    kind: str, conversation: str, arguments: str
) -> None:
    """Also without the messages, from the tokens alone."""
    tokenizer, messages = KINDS[kind](), CONVERSATIONS[conversation]
    expected = _placed(tokenizer, conversation, arguments)
    asked_for = {"add_generation_prompt": True, **ARGUMENTS[arguments]}
    try:
        plain = tokenizer.apply_chat_template(messages, return_dict=False, **asked_for)
    except Exception:  # the template's own refusal
        assert expected is None
        return
    try:
        placed = place_in_tokens(tokenizer, plain, 5)
    except PlacementError:
        pass
    else:
        if (kind, conversation) == ("opened only", "system last"):
            return  # its tokens are those of one user's message
        assert placed == expected
    if expected is not None:
        assert without(expected, 5) == plain
        before = tokenizer.decode(expected.token_ids[: expected.start])
        last_user = [m["content"] for m in messages if m["role"] == "user"][-1]
        if kind not in (
            "gemma",
            "mistral",
            "brackets, sentence pieces",
        ):  # their decoders alter blanks
            ending = "/nothink" if kind == "word" and arguments == "no thinking" else ""
            assert before.rstrip().endswith(last_user + ending)


def test_the_usual_conversations_are_placed_from_tokens_too() -> None:
    for kind in KINDS:
        tokenizer = KINDS[kind]()
        for conversation in ("question", "three turns"):
            messages = CONVERSATIONS[conversation]
            try:
                plain = plain_ids(tokenizer, messages)
            except Exception:
                continue
            if conversation == "three turns" and kind in ("headers",):
                continue  # all text: more than one turn is not told from one that quotes
            expected = _placed(tokenizer, conversation, "default")
            assert place_in_tokens(tokenizer, plain, 5) == expected, (kind, conversation)


@pytest.mark.parametrize(
    "messages", [[{"role": "system", "content": "S"}, *asked(QUESTION)], asked(QUESTION)]
)
def test_a_template_that_raises_is_one_error(messages: list[dict]) -> None:
    """It needs a system turn, or wants none."""
    wants = messages[0]["role"] != "system"
    template = (
        "{% if (messages[0].role == 'system') != " + str(wants).lower() + " %}"
        "{{ raise_exception('as it likes') }}{% endif %}" + templates.CHATML
    )
    with pytest.raises(PlacementError, match=r"refuses messages of the roles \[.*as it likes"):
        place_in_chat(templates.chatml(template), messages, 3)
    check_chat_template(templates.chatml(template), "suffix")  # takes one of the two


def test_tokens_under_a_template_that_wants_a_system_turn() -> None:
    raising = "{% if messages[0].role != 'system' %}{{ raise_exception('S!') }}{% endif %}"
    tokenizer = templates.chatml(raising + templates.NO_END_OF_TURN)
    messages = [{"role": "system", "content": "S"}, *asked(QUESTION)]
    raw = tokenizer.encode(QUESTION)
    assert place_in_tokens(tokenizer, raw, 5).start == len(raw)
    with pytest.raises(PlacementError, match="cannot be told"):  # all text, of several turns
        place_in_tokens(tokenizer, plain_ids(tokenizer, messages), 5)


@pytest.mark.parametrize(
    ("kind", "token"),
    [
        ("opened only", "<|eot_id|>"),
        ("brackets", "<|eot_id|>"),
        ("headers", "<|eot_id|>"),
        ("word", None),
        ("stripping", "<|im_end|>"),
        ("chatml", "<|im_end|>"),
        ("gemma", "<end_of_turn>"),
        ("mistral", "</s>"),
    ],
)
def test_what_closes_the_assistants_turn_is_not_what_closes_the_users(
    kind: str, token: str | None
) -> None:
    tokenizer = KINDS[kind]()
    expected = None if token is None else tokenizer.convert_tokens_to_ids(token)
    assert answer_end(tokenizer) == expected


def test_the_token_that_closes_a_turn_need_not_be_special() -> None:
    """Without it a base model goes on with turns of its own until the response is full."""
    template = "{% for m in messages %}<|S|>{{ m.role + '\n' + m.content }}<|E|>\n{% endfor %}"
    tokenizer = _with(template, [], ("<|S|>", "<|E|>"))
    assert answer_end(tokenizer) == tokenizer.convert_tokens_to_ids("<|E|>")
    qwen = _with("", [], ("<|im_start|>", "<|im_end|>"))
    end = qwen.convert_tokens_to_ids("<|im_end|>")
    assert get_template("qwen-boxed").end_of_turn(qwen) == end


def test_no_assistants_turn_to_see() -> None:
    raising = "{% if messages[0].role != 'system' %}{{ raise_exception('S!') }}{% endif %}"
    tokenizer = templates.chatml(raising + templates.CHATML)
    assert answer_end(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    no_answers = "{{ '<|im_start|>' }}" + templates.SYSTEM_ONLY
    assert answer_end(templates.chatml(no_answers)) is None


def test_added_tokens_that_are_blanks_are_no_turns() -> None:
    """Gemma's line breaks."""
    tokenizer = templates.gemma()
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("\n", "\n\n", "  ")])
    content = "One.\n\nTwo  three\n?"
    raw = tokenizer(content).input_ids
    assert place_in_tokens(tokenizer, raw, 5).start == len(raw)
    placed = place_in_tokens(tokenizer, plain_ids(tokenizer, asked(content)), 5)
    assert placed == place_in_chat(tokenizer, asked(content), 5)
