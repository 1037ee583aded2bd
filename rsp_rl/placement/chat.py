"""Soft prompts in chats: where the L placeholders go, prefix, infix or suffix.

The place is found in the *rendered text*: what the template puts behind the user's message is what
closes the turn, be it a special token (`<|im_end|>`), an ordinary added one (DeepSeek-R1's
`<｜Assistant｜>`) or text (Llama-2's `[/INST]`). The tokens are those of the whole text, cut there.
That keeps every token that the prompt has without a soft prompt, and does not care what the
user wrote: an end-of-turn string inside the question cannot move the soft prompt.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.prompt import (
    INFIX_DESCRIPTION,
    PlacedPrompt,
    Position,
    added_tokens,
    around,
    check_request,
    cut,
    encode,
    message_tokens,
    split_instruction,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Private-use code points: no tokenizer normalises them and no question is likely to hold them.
_MARKER = "\ue0f0{}\ue0f1"


#: How a conversation begins that is made to see what a template does: some want a system turn.
STARTS: tuple[list[dict[str, str]], ...] = ([], [{"role": "system", "content": "System"}])


class TemplateRefusalError(PlacementError):
    """The chat template raises on these messages: no system role, roles that must alternate."""


def place_in_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, Any]],
    length: int,
    position: Position = "suffix",
    **template_kwargs: Any,
) -> PlacedPrompt:
    """Tokenise a chat prompt, by default its assistant turn opened, with L placeholders in it.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: Chat messages with `role` and text `content`; the last user turn gets the soft
            prompt, whatever turns follow it.
        length: L; 0 gives the plain prompt with `start` where a soft prompt would be.
        position: `suffix`, right before what ends the last user turn (`turn_end`); `prefix`,
            before the template's own first token, BOS included; `infix`, the paper's description
            and the L positions, between the question and the instruction (where the turn ends
            with `INSTRUCTION`) or at the turn's end. Blanks after the question stay behind them:
            a template that strips a turn's last blanks then finds the same ones.
        **template_kwargs: Passed on to `apply_chat_template` (`tools`, `enable_thinking`,
            `add_generation_prompt`, ...).

    Raises:
        PlacementError: If there is no chat template, or it refuses the messages; no user turn,
            non-text content, or no end of turn to be found.
    """
    check_request(length, position)
    if length == 0 and position == "infix":
        position = "suffix"  # no description of zero tokens
    if position == "prefix":
        text = _render(tokenizer, messages, template_kwargs)
        return around(tokenizer, [], encode(tokenizer, text), length)
    turn = _last_user_turn(messages)
    content = messages[turn]["content"]
    marker = _unused_marker(messages)
    if position == "suffix":
        marked = content + marker
    else:
        question, rest = split_instruction(content)
        description = INFIX_DESCRIPTION.format(length=length)
        marked = f"{question}\n{description}{marker}{rest}"
    marked_messages = [*messages[:turn], {**messages[turn], "content": marked}]
    marked_messages += messages[turn + 1 :]
    rendered = _render(tokenizer, marked_messages, template_kwargs)
    before, found, after = rendered.rpartition(marker)
    if not found:
        raise PlacementError(_NOT_RENDERED)
    if position == "infix":
        return around(tokenizer, encode(tokenizer, before), encode(tokenizer, after), length)
    # Render anew without the marker: a template that strips the content's trailing blanks must
    # still see them as trailing. What stands around them stays the same.
    text = _render(tokenizer, messages, template_kwargs)
    end = len(text) - len(after)
    if not text.endswith(after) or text[:end].rstrip() != before.rstrip():
        raise PlacementError(_CANNOT_BE_TOLD)
    end += turn_end(tokenizer, messages[: turn + 1], after, template_kwargs)
    return around(tokenizer, *cut(tokenizer, text, end), length)


def question_in_chat(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], **template_kwargs: Any
) -> PlacedPrompt:
    """Tokenise a chat prompt as it is and find the last user message's tokens in it.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: Chat messages with `role` and text `content`.
        **template_kwargs: See `place_in_chat`.

    Returns:
        The plain prompt; the message's tokens, from its first character that is no blank to its
        last, are its `span`.

    Raises:
        PlacementError: If there is no chat template, or it refuses the messages; no user turn,
            non-text or empty content, or tokens that cannot be told from what is around them.
    """
    turn = _last_user_turn(messages)
    content = messages[turn]["content"]
    marker = _unused_marker(messages)
    marked = {**messages[turn], "content": marker + content + marker}
    rendered = _render(
        tokenizer, [*messages[:turn], marked, *messages[turn + 1 :]], template_kwargs
    )
    if marker not in rendered:
        raise PlacementError(_NOT_RENDERED)
    text = _render(tokenizer, messages, template_kwargs)
    before, *_, after = rendered.split(marker)
    end, message = len(text) - len(after), content.strip()
    begin = len(before) + len(text[len(before) : end]) - len(text[len(before) : end].lstrip())
    if (
        rendered.count(marker) != 2
        or not (text.startswith(before) and text.endswith(after))
        or text[len(before) : end].strip() != message
    ):
        raise PlacementError(_MESSAGE_CANNOT_BE_TOLD)
    return message_tokens(tokenizer, text, begin, begin + len(message))


def turn_end(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, Any]],
    after: str,
    template_kwargs: dict[str, Any],
) -> int:
    """Where the user's turn ends in what the template puts behind the user's message.

    No list of names: it is the first that is no blank. Where that is text and a special token
    follows before the assistant's answer, it is that token: the text is then the template's own
    addition to the turn (GLM's `/nothink`).

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: The conversation up to this turn.
        after: What follows the message, later turns included.
        template_kwargs: The chat template's.

    Raises:
        PlacementError: If nothing but blanks follows, or it cannot be told what.
    """
    first = len(after) - len(after.lstrip())
    if not after.startswith(added_tokens(tokenizer), first):
        answered = {
            **template_kwargs,
            "add_generation_prompt": True,
            "continue_final_message": False,
        }
        marker = _unused_marker(messages)
        marked = {**messages[-1], "content": messages[-1]["content"] + marker}
        rendered = _render(tokenizer, [*messages[:-1], marked], answered)
        _, found, closing = rendered.rpartition(marker)
        places = [closing.find(token) for token in added_tokens(tokenizer, special=True)]
        token = min((place for place in places if place >= 0), default=None)
        if token is not None:
            if not found or not after.startswith(closing[:token]):
                raise PlacementError(_CANNOT_BE_TOLD)
            first = max(first, token)
    if first == len(after):
        raise PlacementError(
            "no end-of-turn token found: the template puts nothing behind the user's message; use "
            "a template that closes the turn, or rsp.position=prefix"
        )
    return first


def answer_end(tokenizer: PreTrainedTokenizerBase, **template_kwargs: Any) -> int | None:
    """Token of its own with which the chat template closes the assistant's turn, if it has one.

    It need not be marked as special: Yi's `<|im_end|>` is not.

    Args:
        tokenizer: Tokenizer with a chat template.
        **template_kwargs: The chat template's.
    """
    marker, arguments = _MARKER.format(0), {**template_kwargs, "add_generation_prompt": False}
    answered = [{"role": "user", "content": "Question"}, {"role": "assistant", "content": marker}]
    for start in STARTS:
        try:
            text = _render(tokenizer, [*start, *answered], arguments)
        except PlacementError:
            continue
        _, found, after = text.rpartition(marker)
        ends = [
            token
            for token in added_tokens(tokenizer)
            if found and token.strip() and after.lstrip().startswith(token)
        ]
        return tokenizer.convert_tokens_to_ids(max(ends, key=len)) if ends else None
    return None


_NOT_RENDERED = (
    "the chat template does not render the last user message, which the model would not read (a "
    "template's file name in the place of the template?)"
)
_CANNOT_BE_TOLD = (
    "the chat template renders what follows the user's message differently when the message "
    "changes; the end of the user's turn cannot be told; use rsp.position=prefix"
)


_MESSAGE_CANNOT_BE_TOLD = (
    "the chat template changes the user's message, or renders what is around it differently when "
    "the message changes: its tokens cannot be told from the template's own; use another template, "
    "or a law of rsp.law that inserts soft prompts"
)


def check_chat_template(
    tokenizer: PreTrainedTokenizerBase, position: Position | None, **template_kwargs: Any
) -> None:
    """Fail early, on a one-word question, where no prompt of this tokenizer could be placed.

    A template that refuses such a question may take others: a run tries the rows that it has
    (`rsp_rl.training.prompts`).

    Args:
        tokenizer: Tokenizer with a chat template.
        position: See `place_in_chat`; None without soft prompts, whose prompts need the user's
            message in them all the same.
        **template_kwargs: The chat template's.

    Raises:
        PlacementError: See `place_in_chat` and `placeholder_id`.
    """
    question = {"role": "user", "content": _MARKER.format(0)}
    for start in STARTS:
        with suppress(TemplateRefusalError):
            messages = [*start, question]
            if question["content"] not in _render(tokenizer, messages, template_kwargs):
                raise PlacementError(_NOT_RENDERED)
            if position is not None:
                place_in_chat(tokenizer, messages, 1, position, **template_kwargs)
            return


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], kwargs: dict[str, Any]
) -> str:
    if not (tokenizer.chat_template or kwargs.get("chat_template")):
        raise PlacementError(
            "the tokenizer has no chat template; use an instruction-tuned model's tokenizer, set "
            "actor_rollout_ref.model.custom_chat_template, or place in raw text instead"
        )
    asked = {"add_generation_prompt": True, **kwargs, "tokenize": False}
    try:
        return tokenizer.apply_chat_template(messages, **asked)
    except Exception as error:  # a template may raise, and fail, as it likes
        roles = [message.get("role") for message in messages]
        raise TemplateRefusalError(
            f"the chat template refuses messages of the roles {roles}: {error or type(error)}; "
            "use messages that it takes, or another template"
        ) from error


def _last_user_turn(messages: list[dict[str, Any]]) -> int:
    for turn in range(len(messages) - 1, -1, -1):
        if messages[turn].get("role") == "user":
            if not isinstance(messages[turn].get("content"), str):
                raise PlacementError(
                    "the user's message is not plain text; soft prompts support text prompts only"
                )
            return turn
    raise PlacementError("the prompt has no user message; a soft prompt belongs to the user's turn")


def _unused_marker(messages: list[dict[str, Any]]) -> str:
    everything = json.dumps(messages, ensure_ascii=False, default=str)
    number = 0
    while _MARKER.format(number) in everything:
        number += 1
    return _MARKER.format(number)
