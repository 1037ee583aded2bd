"""Soft prompts in raw text and in literal templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsp_rl.basics.errors import PlacementError
from rsp_rl.placement.prompt import (
    INFIX_DESCRIPTION,
    INSTRUCTION,
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


def place_in_text(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    length: int,
    position: Position = "suffix",
) -> PlacedPrompt:
    """Tokenise a raw text prompt, as given, with L placeholders in it.

    Special tokens that the tokenizer adds to a text by itself (BOS) are added here too.

    Args:
        tokenizer: Any tokenizer.
        text: The prompt.
        length: L.
        position: `suffix`, at the prompt's end; `prefix`, before everything, BOS included;
            `infix`, between the question and a closing `INSTRUCTION`, else at the end, in front
            of closing blanks.

    Raises:
        PlacementError: If length or position is none, or the tokenizer has no placeholder.
    """
    question, instruction = split_instruction(text)
    return place_in_turn(tokenizer, "", question, instruction, "", length, position)


def place_in_turn(
    tokenizer: PreTrainedTokenizerBase,
    opening: str,
    question: str,
    instruction: str,
    closing: str,
    length: int,
    position: Position = "suffix",
) -> PlacedPrompt:
    """Tokenise a prompt that a literal template makes of four pieces, with L placeholders in it.

    Tokens are those that the tokenizer, and with it vLLM, makes of the pieces as one text: special
    tokens in it are read as such, and BOS stands in front where the tokenizer puts one.

    Args:
        tokenizer: Any tokenizer.
        opening: What stands before the question.
        question: The question.
        instruction: What follows it within the user's turn.
        closing: What closes the user's turn and opens the assistant's, from the end-of-turn token
            on; empty for a template without turns.
        length: L; 0 gives the plain prompt.
        position: `suffix`, right before `closing`; `prefix`, before everything, BOS included;
            `infix`, the paper's description and the L positions between question and instruction.

    Raises:
        PlacementError: If `closing` starts with no added token of this tokenizer: text on either
            side of the soft prompt would then be tokenised otherwise than without it.
    """
    check_request(length, position)
    text = opening + question + instruction + closing
    bos = beginning(tokenizer, text)
    if position == "prefix":
        return around(tokenizer, [], bos + encode(tokenizer, text), length)
    if position == "infix" and length:
        before = f"{opening}{question}\n{INFIX_DESCRIPTION.format(length=length)}"
        after = encode(tokenizer, instruction + closing)
        return around(tokenizer, bos + encode(tokenizer, before), after, length)
    if not closing:
        return around(tokenizer, bos + encode(tokenizer, text), [], length)
    turn_end = len(text) - len(closing.lstrip())
    if not text.startswith(added_tokens(tokenizer), turn_end):
        if length:
            raise PlacementError(
                f"no end-of-turn token found: the template closes the user's turn with "
                f"{closing[:40]!r}, which does not start with a token of this tokenizer's own; use "
                "a template of this model's, or rsp.position=prefix"
            )
        ids = bos + encode(tokenizer, text)
        return PlacedPrompt(ids, len(ids) - len(encode(tokenizer, closing)))
    before, after = cut(tokenizer, text, turn_end)
    return around(tokenizer, bos + before, after, length)


def question_in_turn(
    tokenizer: PreTrainedTokenizerBase, opening: str, question: str, instruction: str, closing: str
) -> PlacedPrompt:
    """Tokenise a literal template's prompt as it is and find the tokens of the user's turn in it.

    Args:
        tokenizer: Any tokenizer.
        opening: See `place_in_turn`, as all others.
        question: It.
        instruction: Part of the turn, as in chats; in a text without turns `INSTRUCTION` alone is,
            and anything else there opens the answer.
        closing: No part of it.

    Returns:
        The plain prompt; the turn's tokens, those of blanks around it left out, are its `span`.

    Raises:
        PlacementError: See `message_tokens`.
    """
    text = opening + question + instruction + closing
    told = closing or instruction.strip() == INSTRUCTION
    turn = question + instruction if told else question
    bos = beginning(tokenizer, text)
    begin = len(opening) + len(turn) - len(turn.lstrip())
    found = message_tokens(tokenizer, text, begin, begin + len(turn.strip()))
    return PlacedPrompt(bos + found.token_ids, len(bos) + found.start, found.length)


def beginning(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """BOS where the tokenizer puts one in front of a text, else nothing.

    As a token and not as text: a tokenizer may treat the text's beginning differently.
    """
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    if tokenizer("").input_ids[:1] != bos or (bos and text.startswith(tokenizer.bos_token)):
        return []
    return bos
