"""Soft prompts in prompts that are tokenised already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.chat import place_in_chat
from rsp_rl.placement.prompt import (
    INFIX_DESCRIPTION,
    PlacedPrompt,
    Position,
    around,
    check_request,
    encode,
    split_instruction,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def place_in_tokens(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: list[int],
    length: int,
    position: Position = "suffix",
) -> PlacedPrompt:
    """Put L placeholders into a prompt that is tokenised already, as a server gets it.

    A prompt that ends as the tokenizer's chat template ends one (end-of-turn, assistant turn
    opened) is taken for a chat, every other one for raw text.

    Args:
        tokenizer: The prompt's tokenizer.
        token_ids: Tokens of the prompt, [T].
        length: L.
        position: See `rsp_rl.placement.text.place_in_turn`.

    Raises:
        PlacementError: If an infix has no place because the tokens' text would be tokenised
            otherwise.
    """
    check_request(length, position)
    closing = _closing_tokens(tokenizer)
    if not closing or token_ids[-len(closing) :] != closing:
        closing = []
    before = token_ids[: len(token_ids) - len(closing)]
    if position == "prefix":
        return around(tokenizer, [], token_ids, length)
    if position == "suffix" or length == 0:
        return around(tokenizer, before, closing, length)
    text = tokenizer.decode(before)
    if encode(tokenizer, text) != before:
        raise PlacementError(
            "an infix has no place in this prompt: its tokens are not those that the tokenizer "
            "makes of their text; use position suffix or prefix"
        )
    question, instruction = split_instruction(text)
    described = f"{question}\n{INFIX_DESCRIPTION.format(length=length)}"
    after = encode(tokenizer, instruction) + closing
    return around(tokenizer, encode(tokenizer, described), after, length)


def _closing_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the chat template puts after the user's last message; nothing without a template."""
    try:
        placed = place_in_chat(tokenizer, [{"role": "user", "content": "Question"}], 1)
    except PlacementError:
        return []
    return placed.token_ids[placed.start + 1 :]
