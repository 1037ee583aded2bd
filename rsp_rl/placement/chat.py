"""Soft prompts in chats: where the L placeholders go, prefix, infix or suffix.

The place is found in the *rendered text*, then the text on either side is tokenised by itself.
That keeps every token that the prompt has without a soft prompt, and does not care what the
user wrote: an end-of-turn string inside the question cannot move the soft prompt.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.prompt import (
    INFIX_DESCRIPTION,
    PlacedPrompt,
    Position,
    around,
    check_request,
    encode,
    placeholder_id,
    split_at_end_of_turn,
    split_instruction,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Private-use code points: no tokenizer normalises them and no question is likely to hold them.
_MARKER = "\ue0f0{}\ue0f1"


def place_in_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, Any]],
    length: int,
    position: Position = "suffix",
    **template_kwargs: Any,
) -> PlacedPrompt:
    """Tokenise a chat prompt, its assistant turn opened, with L placeholders in it.

    Args:
        tokenizer: Tokenizer with a chat template.
        messages: Chat messages with `role` and text `content`; the last user turn gets the soft
            prompt, whatever turns follow it.
        length: L; 0 gives the plain prompt with `start` where a soft prompt would be.
        position: `suffix`, right before the end-of-turn token of the last user turn; `prefix`,
            before the template's own first token, BOS included; `infix`, the paper's description
            and the L positions, between the question and the instruction (where the turn ends
            with `INSTRUCTION`) or at the turn's end. Blanks after the question stay behind them:
            a template that strips a turn's last blanks then finds the same ones.
        **template_kwargs: Passed on to `apply_chat_template` (`tools`, `enable_thinking`, ...).

    Raises:
        PlacementError: If there is no chat template, no user turn, non-text content, or no
            end-of-turn token to be found.
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
        raise PlacementError(
            "the chat template does not render the last user message; "
            "a soft prompt has no place in such a prompt"
        )
    if position == "suffix":
        # Render anew without the marker: a template that strips the content's trailing blanks
        # must still see them as trailing. What follows the content stays the same.
        text = _render(tokenizer, messages, template_kwargs)
        if not text.endswith(after):
            raise PlacementError(
                "the chat template renders what follows the user's message differently when the "
                "message changes; the end of the user's turn cannot be told"
            )
        before = text[: len(text) - len(after)]
        gap, after = split_at_end_of_turn(tokenizer, after)
        before += gap
    return around(tokenizer, encode(tokenizer, before), encode(tokenizer, after), length)


def check_chat_template(tokenizer: PreTrainedTokenizerBase, position: Position) -> None:
    """Fail early, on a one-word question, where no prompt of this tokenizer could be placed.

    Raises:
        PlacementError: See `place_in_chat` and `placeholder_id`.
    """
    place_in_chat(tokenizer, [{"role": "user", "content": "Question"}], 1, position)
    placeholder_id(tokenizer)


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], kwargs: dict[str, Any]
) -> str:
    if not tokenizer.chat_template:
        raise PlacementError(
            "the tokenizer has no chat template; use an instruction-tuned model's tokenizer, set "
            "actor_rollout_ref.model.custom_chat_template, or place in raw text instead"
        )
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **kwargs
    )


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
