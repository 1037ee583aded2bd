"""Where the L placeholder tokens of a soft prompt go: prefix, infix or suffix of a prompt.

The place is found in the *rendered text*, then the text on either side is tokenised by itself.
That keeps every token that the prompt has without a soft prompt, and does not care what the
user wrote: an end-of-turn string inside the question cannot move the soft prompt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Position = Literal["prefix", "infix", "suffix"]
POSITIONS: tuple[str, ...] = get_args(Position)

#: The instruction of the paper's prompts; an infix soft prompt goes between question and it.
INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."

#: The infix description (paper, section 3.1 and appendix A), to be followed by the L positions.
INFIX_DESCRIPTION = (
    "There are {length} special tokens that contain compressed latent reasoning information that "
    "might be useful for your reasoning. If these tokens are useful for your case, you can use "
    "them as reference. If these tokens are not useful for your case, you can ignore them and "
    "focus back to solving the problem.\nHere are the {length} special tokens: "
)

# Private-use code points: no tokenizer normalises them and no question is likely to hold them.
_MARKER = "\ue0f0{}\ue0f1"


class PlacementError(ValueError):
    """The soft prompt cannot be placed in this prompt; the message names the cause and the mend."""


@dataclass(frozen=True)
class PlacedPrompt:
    """A tokenised prompt with its soft prompt positions.

    Attributes:
        token_ids: Prompt tokens, placeholders included, [T].
        start: Index of the first placeholder.
    """

    token_ids: list[int]
    start: int


def placeholder_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token that stands at the soft prompt positions: the padding token, else end-of-sequence.

    Its embedding is never used. A special token, so that decoding for logs leaves it out.
    """
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    raise PlacementError(
        "the tokenizer has neither a padding nor an end-of-sequence token to stand at the soft "
        "prompt positions; set tokenizer.pad_token"
    )


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
    _check(length, position)
    if length == 0 and position == "infix":
        position = "suffix"  # no description of zero tokens
    if position == "prefix":
        text = _render(tokenizer, messages, template_kwargs)
        return _around(tokenizer, [], _encode(tokenizer, text), length)
    turn = _last_user_turn(messages)
    content = messages[turn]["content"]
    marker = _unused_marker(messages)
    if position == "suffix":
        marked = content + marker
    else:
        question, rest = _split_instruction(content)
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
        gap, after = _split_at_end_of_turn(tokenizer, after)
        before += gap
    return _around(tokenizer, _encode(tokenizer, before), _encode(tokenizer, after), length)


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
    """
    question, instruction = _split_instruction(text)
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
        PlacementError: If `closing` starts with no special token of this tokenizer: text on either
            side of the soft prompt would then be tokenised otherwise than without it.
    """
    _check(length, position)
    text = opening + question + instruction + closing
    # BOS as a token and not as text: a tokenizer may treat the text's beginning differently.
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    if tokenizer("").input_ids[:1] != bos or (bos and text.startswith(tokenizer.bos_token)):
        bos = []
    if position == "prefix":
        return _around(tokenizer, [], bos + _encode(tokenizer, text), length)
    if length == 0:
        ids = bos + _encode(tokenizer, text)
        return PlacedPrompt(ids, len(ids) - len(_encode(tokenizer, closing)))
    before, after = opening + question + instruction, closing
    if position == "infix":
        before = f"{opening}{question}\n{INFIX_DESCRIPTION.format(length=length)}"
        after = instruction + closing
    elif closing:
        gap, after = _split_at_end_of_turn(tokenizer, closing)
        before += gap
    return _around(tokenizer, bos + _encode(tokenizer, before), _encode(tokenizer, after), length)


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
        position: See `place_in_turn`.

    Raises:
        PlacementError: If an infix has no place because the tokens' text would be tokenised
            otherwise.
    """
    _check(length, position)
    closing = _closing_tokens(tokenizer)
    if not closing or token_ids[-len(closing) :] != closing:
        closing = []
    before = token_ids[: len(token_ids) - len(closing)]
    if position == "prefix":
        return _around(tokenizer, [], token_ids, length)
    if position == "suffix" or length == 0:
        return _around(tokenizer, before, closing, length)
    text = tokenizer.decode(before)
    if _encode(tokenizer, text) != before:
        raise PlacementError(
            "an infix has no place in this prompt: its tokens are not those that the tokenizer "
            "makes of their text; use position suffix or prefix"
        )
    question, instruction = _split_instruction(text)
    described = f"{question}\n{INFIX_DESCRIPTION.format(length=length)}"
    after = _encode(tokenizer, instruction) + closing
    return _around(tokenizer, _encode(tokenizer, described), after, length)


def _closing_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the chat template puts after the user's last message; nothing without a template."""
    try:
        placed = place_in_chat(tokenizer, [{"role": "user", "content": "Question"}], 1)
    except PlacementError:
        return []
    return placed.token_ids[placed.start + 1 :]


def extra_tokens(tokenizer: PreTrainedTokenizerBase, length: int, position: Position) -> int:
    """Tokens that a soft prompt adds to a prompt at most: L, and for infix its description."""
    _check(length, position)
    if length == 0 or position != "infix":
        return length
    description = f"\n{INFIX_DESCRIPTION.format(length=length)}"
    # A few to spare: text on either side of a seam may need more tokens than in one piece.
    return length + len(tokenizer.encode(description, add_special_tokens=False)) + 8


def check_chat_template(tokenizer: PreTrainedTokenizerBase, position: Position) -> None:
    """Fail early, on a one-word question, where no prompt of this tokenizer could be placed."""
    place_in_chat(tokenizer, [{"role": "user", "content": "Question"}], 1, position)
    placeholder_id(tokenizer)


def _check(length: int, position: str) -> None:
    if position not in POSITIONS:
        raise PlacementError(f"unknown soft prompt position {position!r}; use one of {POSITIONS}")
    if length < 0:
        raise PlacementError(f"soft prompt length {length} is negative; 0 turns RSP off")


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


def _split_instruction(text: str) -> tuple[str, str]:
    """A prompt's question, and what follows it: blanks, and the instruction if there is one."""
    question, _, rest = text.rpartition(INSTRUCTION)
    if rest.strip():
        question = text
    question = question.rstrip() or question  # blanks alone stay in front, where they were
    return question, text[len(question) :]


def _split_at_end_of_turn(tokenizer: PreTrainedTokenizerBase, after: str) -> tuple[str, str]:
    """Split what follows the user's message in front of its first special token: end-of-turn.

    No list of names: end-of-turn is whatever special token the template puts first after the
    message (`<|im_end|>`, `<|eot_id|>`, `<end_of_turn>`, `[/INST]`), blanks aside.
    """
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special} | {*tokenizer.all_special_tokens}
    stripped = after.lstrip()
    if stripped.startswith(tuple(special)):
        return after[: len(after) - len(stripped)], stripped
    raise PlacementError(
        "no end-of-turn token found: the template closes the user's turn with "
        f"{after[:40]!r}, which does not start with a special token of the tokenizer; use a "
        "template that has one, or rsp.position=prefix"
    )


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False) if text else []


def _around(
    tokenizer: PreTrainedTokenizerBase, before: list[int], after: list[int], length: int
) -> PlacedPrompt:
    """Two runs of token ids with L placeholders between them."""
    soft_prompt = [placeholder_id(tokenizer)] * length if length else []
    return PlacedPrompt(before + soft_prompt + after, len(before))
